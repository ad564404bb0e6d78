# shellcheck shell=bash
# What the scripts of this folder share: words on the terminal, logs, packages. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
log_dir=$root/.cache/log
mkdir -p "$log_dir"
# A script started by another goes on counting from the first one's start.
export MILLRACE_STARTED=${MILLRACE_STARTED:-$(date +%s)}

# An interrupt ends the script, even if the command under way takes it as a reason to end well.
trap 'exit 130' INT

say() {
    printf '[%3ds] %s\n' "$(($(date +%s) - MILLRACE_STARTED))" "$*"
}

fail() {
    say "FAILED: $*"
    exit 1
}

# last_words LOG: the line of a log that most likely says what went wrong.
last_words() {
    local line
    line=$(grep -iE '(^|[^a-z])(error|failed|denied|cannot|no space|unable|e:)' "$1" | tail -n 1 || true)
    line=${line:-$(grep -v '^[[:space:]]*$' "$1" | tail -n 1 || true)}
    if ((${#line} > 240)); then
        line="${line:0:80} ... ${line: -155}"
    fi
    echo "$line"
}

# logged NAME WHAT COMMAND...: run COMMAND with its output in a log; a failure ends the script
# with one line.
logged() {
    local log=$log_dir/$1.log what=$2
    shift 2
    "$@" >"$log" 2>&1 </dev/null || fail "$what: $(last_words "$log") (log: ${log#"$root"/})"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

engine_answers() {
    have docker && timeout 20 docker version >/dev/null 2>&1
}

can_install() {
    [[ $(id -u) == 0 ]] && have apt-get
}

# What an interrupted installation left half done is finished first; one under way is waited for.
apt_install() {
    local install=(apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@")
    export DEBIAN_FRONTEND=noninteractive
    dpkg --configure -a --force-confdef
    "${install[@]}" && return
    apt-get update -q && "${install[@]}"
}

# need_packages WHY PACKAGE...: install Debian packages, or say how to get them.
need_packages() {
    local why=$1
    shift
    can_install || fail "$why needs $*; as root on Debian or Ubuntu this is installed for you (sudo make ...)"
    say "installing $*"
    logged "apt" "cannot install $*" apt_install "$@"
}

# in_python_container OPTION... -- COMMAND...: run a command where Python and pip are those of the
# services, but with the machine's network and certificates, because a proxy's certificate is known
# only there.
in_python_container() {
    local certificates=/etc/ssl/certs/ca-certificates.crt
    local options=(--rm --network host --user "$(id -u):$(id -g)" -e HOME=/tmp
        -e PIP_INDEX_URL -e PIP_DISABLE_PIP_VERSION_CHECK=1 -e HTTP_PROXY -e HTTPS_PROXY -e NO_PROXY)
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    if [[ -r $certificates ]]; then
        options+=(-v "$certificates:/certificates.crt:ro" -e PIP_CERT=/certificates.crt)
    fi
    docker run "${options[@]}" millrace/python:local "$@"
}
