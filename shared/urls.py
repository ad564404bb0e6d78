"""What does the address of MySQL or Redis mean? Pure: both spellings of `DB_URL`, to one form."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

#: The last `@` ends the password, which may have any characters, as in Go.
_MYSQL = re.compile(
    r"mysql://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?:tcp(?=\())?(?P<open>\()?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:/()\[\]]+)(?::(?P<port>\d{1,5}))?(?(open)\))"
    r"/(?P<name>[^/?#]+)(?:\?.*)?",
    re.DOTALL | re.IGNORECASE,
)
_PORT_MAX = 65535


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
    found = _MYSQL.fullmatch(url.strip())
    port = int(found["port"] or 3306) if found else 0
    if found is None or not 0 < port <= _PORT_MAX:
        raise ValueError(
            "must be mysql://user:password@host:3306/db or mysql://user:password@tcp(host:3306)/db"
        )
    return Database(
        host=found["host"].strip("[]"),
        port=port,
        user=unquote(found["user"] or ""),
        password=unquote(found["password"] or ""),
        name=found["name"],
    )


def check_redis(url: str) -> None:
    """Check an address like `redis://host:6379/0` or `unix:///run/redis/redis.sock?db=0`.

    Raises ValueError, which shows no password.
    """
    wrong = ValueError(
        "must be redis://host:6379 or redis://host:6379/0 (or rediss://), "
        "or unix:///path/of/redis.sock"
    )
    try:
        parts = urlsplit(url.strip())
        known = _is_host(parts) or _is_socket(parts)
    except ValueError:
        raise wrong from None
    if not known:
        raise wrong


def _is_host(parts: SplitResult) -> bool:
    known = parts.scheme in {"redis", "rediss"} and parts.hostname and parts.port != 0
    return bool(known and re.fullmatch(r"(/\d*)?", parts.path))


def _is_socket(parts: SplitResult) -> bool:
    has_path = parts.scheme == "unix" and not parts.hostname and len(parts.path) > 1
    return bool(has_path and re.fullmatch(r"(db=\d+)?", parts.query))


def without_password(url: str) -> str:
    """Return an address as it may be shown; other text stays as it is.

    >>> without_password("mysql://func:s@cret@tcp(db:3306)/func")
    'mysql://func:***@tcp(db:3306)/func'
    """
    return re.sub(r"(://[^:@/]*:).*@", r"\1***@", url, flags=re.DOTALL)
