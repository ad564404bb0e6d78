"""Which client does this replica hand out? The file that `make fn` packed, and its installer."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

_INSTALLER = Path(__file__).with_name("install.sh")
#: Where the packed file has its version.
_VERSION = "fn/VERSION"


@dataclass(frozen=True, slots=True)
class Packed:
    """The client, read once."""

    body: bytes
    #: In hexadecimal digits.
    sha256: str
    version: str
    #: The script that installs it, as `installing.script` fills it in.
    installer: str

    @property
    def etag(self) -> str:
        """The entity tag of its body, as HTTP writes it."""
        return f'"{self.sha256}"'


def read(path: str) -> Packed | None:
    """Return the packed client at a path; None if there is none, or no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            version = archive.read(_VERSION).decode()
        body = Path(path).read_bytes()
    except (OSError, zipfile.BadZipFile, KeyError):
        return None
    installer = _INSTALLER.read_text(encoding="utf-8")
    return Packed(body, hashlib.sha256(body).hexdigest(), version, installer)
