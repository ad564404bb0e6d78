#!/bin/sh
# Puts `fn`, the command line of Millrace, into a folder of your PATH, without root:
#     curl @URL@/fn | sh
# FN_INSTALL_DIR=DIR chooses the folder. An fn that is there stays as it is if this one fails.
set -eu

url='@URL@'
context='@CONTEXT@'
sha256='@SHA256@'
version='@VERSION@'
fresh=

say() {
    printf '%s\n' "$*"
}

# fail WHAT [HINT]
fail() {
    printf 'fn is not installed: %s\n' "$1" >&2
    if [ -n "${2-}" ]; then printf '    %s\n' "$2" >&2; fi
    exit 1
}

check_python() {
    command -v python3 >/dev/null 2>&1 ||
        fail 'it needs Python 3.9 or later, and there is no python3 in the PATH' \
            'Debian, Ubuntu: sudo apt-get install python3; macOS: xcode-select --install'
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' </dev/null ||
        fail "it needs Python 3.9 or later, and python3 is $(python3 --version 2>&1 </dev/null)" \
            'Install a newer one, and let python3 in the PATH be it'
}

on_path() {
    case ":$PATH:" in
        *":$1:"* | *":$1/:"*) return 0 ;;
        *) return 1 ;;
    esac
}

# Print the folder of the PATH that takes fn: one's own first, then the machine's, then any; if
# there is none, one's own that is not in the PATH yet.
choose_folder() {
    if [ -n "${FN_INSTALL_DIR-}" ]; then
        say "$FN_INSTALL_DIR"
        return
    fi
    for folder in "${HOME:-/nowhere}/.local/bin" "${HOME:-/nowhere}/bin"; do
        if on_path "$folder" && mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ]; then
            say "$folder"
            return
        fi
    done
    old_ifs=$IFS
    IFS=:
    for folder in /usr/local/bin $PATH; do
        case $folder in
            /bin | /usr/bin | */sbin | [!/]* | '') continue ;;
        esac
        if on_path "$folder" && [ -d "$folder" ] && [ -w "$folder" ]; then
            IFS=$old_ifs
            say "${folder%/}"
            return
        fi
    done
    IFS=$old_ifs
    say "${HOME:-/nowhere}/.local/bin"
}

# download FROM TO
download() {
    insecure=
    case ${SSL_SKIP_VERIFY-} in 1 | t | T | true | TRUE | True) insecure=yes ;; esac
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL ${insecure:+-k} -o "$2" "$1" </dev/null
    elif command -v wget >/dev/null 2>&1; then
        wget -q ${insecure:+--no-check-certificate} -O "$2" "$1" </dev/null
    else
        fail 'neither curl nor wget is there' 'Install one of them'
    fi
}

checksum() {
    python3 -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1" </dev/null
}

is_ours() {
    [ "$(dd if="$1" bs=22 count=1 2>/dev/null | tr -d '\000')" = '#!/usr/bin/env python3' ]
}

# Another program of the same name is kept beside it.
keep_stranger() {
    if [ -e "$1" ] && ! is_ours "$1"; then
        mv -f "$1" "$1.before-millrace"
        say "Another program called fn is now $1.before-millrace"
    fi
}

tell_path() {
    if ! on_path "$1"; then
        say "$1 is not in your PATH yet. This adds it, now and for shells to come:"
        case ${SHELL-} in
            */fish) say "    fish_add_path $1" ;;
            */zsh) say "    export PATH=\"$1:\$PATH\"; echo 'export PATH=\"$1:\$PATH\"' >>~/.zshrc" ;;
            *) say "    export PATH=\"$1:\$PATH\"; echo 'export PATH=\"$1:\$PATH\"' >>~/.profile" ;;
        esac
        return
    fi
    first=$(command -v fn || true)
    if [ "$first" != "$1/fn" ]; then
        say "Another fn comes before it in your PATH: $first"
    fi
}

# fn asks http://localhost:8080 unless it knows better.
tell_platform() {
    case $url in http://localhost:8080 | http://127.0.0.1:8080) return ;; esac
    if [ -n "${API_URL-}" ]; then return; fi
    contexts=${XDG_CONFIG_HOME:-${HOME:-/nowhere}/.config}/millrace/contexts.yaml
    if grep -qxF "    api_url: $url" "$contexts" 2>/dev/null; then return; fi
    if [ -e "$contexts" ]; then
        say "It goes on with the context you use; this one is new: fn context add $context $url --use"
    elif "$1" context add "$context" "$url" --use </dev/null >/dev/null 2>&1; then
        say "It talks to $url (context $context)"
    fi
}

main() {
    check_python
    folder=$(choose_folder)
    mkdir -p "$folder" 2>/dev/null || fail "cannot make the folder $folder" 'Choose one: FN_INSTALL_DIR=DIR'
    [ -w "$folder" ] || fail "cannot write to $folder" 'Choose another: FN_INSTALL_DIR=DIR'
    [ ! -d "$folder/fn" ] || fail "$folder/fn is a folder" 'Choose another: FN_INSTALL_DIR=DIR'
    fresh=$folder/.fn-$$
    trap 'rm -f "$fresh"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    download "$url/fn/download" "$fresh" || fail "cannot download $url/fn/download"
    [ "$(checksum "$fresh")" = "$sha256" ] ||
        fail 'what was downloaded is not what its checksum says' 'Try again'
    chmod 755 "$fresh"
    "$fresh" --version </dev/null >/dev/null 2>&1 ||
        fail 'it does not run here' "See why: curl -O $url/fn/download && python3 download --version"
    keep_stranger "$folder/fn"
    mv -f "$fresh" "$folder/fn"
    say "fn $version is installed: $folder/fn"
    tell_path "$folder"
    tell_platform "$folder/fn"
}

main
