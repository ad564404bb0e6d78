"""What does a database address mean? Pure: both spellings of `DB_URL`, to one form."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Database:
    """Where a MySQL database is and who asks."""

    host: str
    port: int
    user: str
    password: str
    name: str


def parse_mysql(url: str) -> Database:
    """Return the parts of `mysql://user:pw@host:3306/db` or of `mysql://user:pw@tcp(host:3306)/db`.

    Raises ValueError, which never shows the password.

    >>> parse_mysql("mysql://func:pw@tcp(db:3306)/func").host
    'db'
    """
    plain = re.sub(r"@tcp\(([^)]*)\)/", r"@\1/", url)
    parts = urlsplit(plain)
    name = parts.path.lstrip("/")
    if parts.scheme != "mysql" or not parts.hostname or not name:
        raise ValueError(
            "must be mysql://user:password@host:3306/db or mysql://user:password@tcp(host:3306)/db"
        )
    return Database(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        name=name,
    )
