"""Which credentials does an image's registry get? Pure: from configured texts and an image's name.

`DOCKER_AUTH` is a JSON list of `{"name", "username", "password"}`; without it the `auths` of a
Docker `config.json` serve. Credential helpers of that file are programs, and are not run.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HUB = "registry.hub.docker.com"
_HUB_ALIASES = (HUB, "index.docker.io", "docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    """Who we are at one registry; `name` is the registry as it was configured."""

    name: str
    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


def registry_of(image: str) -> str:
    """Return the registry an image's name points to.

    >>> [registry_of(i) for i in ("x", "user/x:1", "hub.faas.org/x", "host:5000/user/x")]
    ['registry.hub.docker.com', 'registry.hub.docker.com', 'hub.faas.org', 'host:5000']
    """
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or image.count("/") > 1):
        return first
    return HUB


def match(credentials: Sequence[Credential], image: str) -> Credential | None:
    """Return the first credential whose registry is the image's, or None: pull without.

    The configured name matches if, without scheme and path, it ends with the registry's.

    >>> found = match([Credential("https://hub.faas.org", "u", "p")], "hub.faas.org/x:1")
    >>> found and found.username
    'u'
    """
    registry = registry_of(image)
    wanted = _HUB_ALIASES if registry in _HUB_ALIASES else (registry,)
    for credential in credentials:
        if _host(credential.name).endswith(wanted):
            return credential
    return None


def _host(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def parse_docker_auth(text: str) -> list[Credential]:
    """Return the credentials in `DOCKER_AUTH`; "" has none.

    Raises ValueError, which never shows a password.
    """
    if not text:
        return []
    wrong = ValueError('must be a JSON list of {"name", "username", "password"}, all of them texts')
    try:
        rows = json.loads(text)
    except ValueError:
        raise wrong from None
    names = ("name", "username", "password")
    if not isinstance(rows, list) or not all(_has_texts(row, names) for row in rows):
        raise wrong
    return [Credential(row["name"], row["username"], row["password"]) for row in rows]


def _has_texts(row: object, names: Sequence[str]) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in names)


def parse_docker_config(text: str) -> list[Credential]:
    """Return the credentials in a `config.json`; what is no credential there is left out.

    Raises ValueError if it is no JSON object.
    """
    config = json.loads(text)
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(auths, dict | None):
        raise ValueError("must be a JSON object with auths")  # noqa: TRY004 (wrong text, not call)
    found = (_from_config(name, entry) for name, entry in (auths or {}).items())
    return [credential for credential in found if credential]


def _from_config(name: str, entry: Any) -> Credential | None:  # noqa: ANN401 (JSON)
    if not isinstance(entry, dict):
        return None
    token = str(entry.get("identitytoken") or "")
    try:
        pair = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, _, password = pair.partition(":")
    username = username or str(entry.get("username") or "")
    password = password.rstrip("\0") or str(entry.get("password") or "")
    return Credential(name, username, password, token) if username or token else None
