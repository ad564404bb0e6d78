"""What do the addresses of MySQL and Redis mean? Pure: all spellings of `DB_URL` and `MQ_URL`."""

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

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


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the master of a Redis is, and how one speaks to it and to them."""

    sentinels: tuple[Address, ...]
    master: str
    db: int = 0
    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""


SENTINEL = "redis+sentinel://"
_SENTINEL_PORT = 26379
_SENTINEL_FORM = f"{SENTINEL}host1:{_SENTINEL_PORT},host2:{_SENTINEL_PORT}/master-name[/db]"
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_SENTINEL_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")


def check_redis(url: str) -> None:
    """Check an address like `redis://host:6379/0` or `unix:///run/redis/redis.sock?db=0`.

    Raises ValueError, which shows no password.
    """
    if is_sentinel(url):
        parse_sentinels(url)
        return
    if re.match(r"\s*rediss?\+cluster:", url, re.IGNORECASE):
        raise ValueError(
            "Redis Cluster is not supported: all keys share one hash tag, so one shard would have "
            f"them all; use redis://host:6379, or Sentinel for fail-over, as {_SENTINEL_FORM}"
        )
    if re.match(r"\s*rediss\+sentinel:", url, re.IGNORECASE):
        raise ValueError(f"Sentinel over TLS is not supported; use {_SENTINEL_FORM}")
    wrong = ValueError(
        "must be redis://host:6379 or redis://host:6379/0 (or rediss://), "
        f"or unix:///path/of/redis.sock, or {_SENTINEL_FORM}"
    )
    try:
        parts = urlsplit(url.strip())
        known = _is_host(parts) or _is_socket(parts)
    except ValueError:
        raise wrong from None
    if not known:
        raise wrong


def is_sentinel(url: str) -> bool:
    """Say whether an address is one of sentinels."""
    return url.strip().lower().startswith(SENTINEL)


def parse_sentinels(url: str) -> Sentinels:
    """Return the parts of `redis+sentinel://[user:pw@]h1:26379,h2:26379/master-name[/db][?...]`.

    User and password are Redis' own; the sentinels' are options. Raises ValueError, which names
    the part that is wrong, and never shows a password.

    >>> parse_sentinels("redis+sentinel://a,b:26380/main/1").sentinels[1]
    Address(host='b', port=26380)
    """
    rest, _, query = url.strip()[len(SENTINEL) :].partition("?")
    account, _, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    master, _, db = path.partition("/")
    username, _, password = account.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", master):
        what = f"not {master!r}" if master else "it is missing"
        raise ValueError(
            f"the master's name comes after the hosts, as the sentinels have it: {what}; "
            f"must be {_SENTINEL_FORM}"
        )
    if not re.fullmatch(r"\d*", db):
        raise ValueError(f"the database after the master's name must be a number, not {db!r}")
    return Sentinels(
        sentinels=tuple(_sentinel(text) for text in hosts.split(",")),
        master=master,
        db=int(db or 0),
        username=unquote(username),
        password=unquote(password),
        **_sentinel_options(query),
    )


def _sentinel(text: str) -> Address:
    found = _SENTINEL_HOST.fullmatch(text.strip())
    port = int(found[3] or _SENTINEL_PORT) if found else 0
    if found is None or not 0 < port <= _PORT_MAX:
        raise ValueError(
            f"each sentinel must be host or host:port, with commas between, not {text!r}"
        )
    return Address(found[1] or found[2], port)


def _sentinel_options(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in _SENTINEL_OPTIONS:
            known = " and ".join(_SENTINEL_OPTIONS)
            raise ValueError(f"the options of a sentinel address are {known}, not {name!r}")
    return given


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
    shown = re.sub(r"(://[^:@/]*:).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", shown)
