"""How is the client installed from this address? Pure: a shell script, made for who asks."""

import re

from services.api.problems import BadRequest

#: Names and addresses with a port, and nothing that a shell would take for more.
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")

#: What a shell gets that wants to run the script of an api which has none.
NOT_PACKED = """\
echo 'fn is not installed: this api was started without the packed client' >&2
echo '    Its operator packs it with: make fn images up' >&2
exit 1
"""


def address(host: str, forwarded: str, scheme: str) -> str:
    """Return where a client reached this api: by its `Host` and `X-Forwarded-Proto`.

    Raises `BadRequest` if the host is none.

    >>> address("fs.faas.pro", "https", "http")
    'https://fs.faas.pro'
    """
    if not _HOST.fullmatch(host):
        raise BadRequest("Host must be the name and port by which clients reach this api")
    outermost = forwarded.partition(",")[0].strip().lower()
    return f"{outermost if outermost in {'http', 'https'} else scheme}://{host}"


def script(template: str, url: str, sha256: str, version: str) -> str:
    """Return the script that installs the client of this checksum and version from a URL."""
    filled = {"URL": url, "CONTEXT": context(url), "SHA256": sha256, "VERSION": version}
    return re.sub(r"@([A-Z0-9]+)@", lambda found: filled[found[1]], template)


def context(url: str) -> str:
    """Return the name under which the client will know this address.

    >>> context("http://10.0.0.7:8080")
    '10.0.0.7-8080'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-.")
