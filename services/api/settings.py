"""Which settings does an api replica have?"""

from dataclasses import dataclass

import marshmallow as ma

from services.api import addresses
from shared import urls
from shared.settings import at_least, log_level, setting

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can choose for the api; field `port` is the variable `PORT`."""

    port: int = setting(8080, "Port of the API.", check=ma.validate.Range(0, 65535))
    log_level: str = log_level()
    db_url: str = setting(
        "mysql://func:func-password@tcp(db:3306)/func",
        "MySQL; also as mysql://user:password@host:3306/db.",
        check=urls.parse_mysql,
    )
    mq_url: str = setting(
        "redis://mq:6379",
        "Redis, as redis://host:port/db, unix:///path/of/redis.sock, or by its "
        "[sentinels](operating.md#a-redis-that-fails-over).",
        check=urls.check_redis,
    )
    api_url: str = setting(
        "http://127.0.0.1:8080", "Where clients reach this API, as its OpenAPI document says it."
    )
    fn_file: str = setting(
        "/usr/local/lib/millrace/fn",
        "The packed client that `/fn` hands out, as `make fn` makes it.",
    )
    hub: str = setting(
        "",
        "Address of the hub as clients and engines name it, for instance 127.0.0.1:5000.",
        check=ma.validate.Regexp(
            r"[A-Za-z0-9.-]+(:[0-9]+)?\Z", error="must be host or host:port, without https://"
        ),
    )
    jwt_auth_key: str = setting(
        "",
        "Secret that signs the tokens management asks for; empty: it asks for none.",
        secret=True,
    )
    request_max_bytes: int = setting(
        8 * MIB, "Largest request body of a call.", unit="bytes", check=at_least(1)
    )
    environment_max_bytes: int = setting(
        256 * 1024, "Largest environment of a call.", unit="bytes", check=at_least(1024)
    )
    capacity_wait_s: float = setting(
        30.0, "How long a sync call waits for a runner with room.", unit="s", check=at_least(0)
    )
    sync_queue_max: int = setting(
        2000, "Sync calls that may wait in Redis before new ones get 503.", check=at_least(1)
    )
    async_queue_max: int = setting(
        100_000, "Async calls that may wait in Redis before new ones get 503.", check=at_least(1)
    )
    max_waiting: int = setting(
        10_000, "Callers one api replica keeps waiting at once.", check=at_least(1)
    )
    line_wait_s: float = setting(
        0.25,
        "While more calls of a route come than are served, one that would wait for longer than "
        "this and than a call takes is refused at once; 0: it waits.",
        unit="s",
        check=at_least(0),
    )
    connections_max: int = setting(
        10_000, "Connections one api replica serves at once; beyond, 503.", check=at_least(1)
    )
    bodies_max_bytes: int = setting(
        256 * MIB,
        "Request bodies one api replica holds at once; beyond, a call is refused.",
        unit="bytes",
        check=at_least(1),
    )
    record_retention_days: int = setting(
        7, "How long records of calls are kept; 0: for ever.", unit="days", check=at_least(0)
    )
    dead_letter_retention_days: int = setting(
        30, "How long dead letters are kept; 0: for ever.", unit="days", check=at_least(0)
    )
    dead_letters_max: int = setting(
        10_000,
        "Dead letters kept of one app; beyond, the oldest are dropped.",
        check=at_least(1),
    )
    idempotency_ttl_s: float = setting(
        86_400.0, "How long an Idempotency-Key is remembered.", unit="s", check=at_least(1)
    )
    idempotency_answer_max_bytes: int = setting(
        256 * 1024,
        "Largest answer that is kept for requests with the same Idempotency-Key.",
        unit="bytes",
        check=at_least(0),
    )
    idempotency_max_bytes: int = setting(
        256 * MIB,
        "What all keys and their answers may take in Redis, about; beyond, new keys get 503.",
        unit="bytes",
        check=at_least(0),
    )
    callback_allow_networks: str = setting(
        "",
        "Networks that callbacks may reach beside the public internet: 10.1.0.0/16, fd00::/8.",
        check=addresses.networks,
    )
    callback_retry_s: float = setting(
        86_400.0, "How long a callback is tried again.", unit="s", check=at_least(0)
    )
    callback_timeout_s: float = setting(
        10.0, "How long a receiver may take to answer a callback.", unit="s", check=at_least(0.1)
    )
    callback_concurrency: int = setting(
        32,
        "Callbacks one api replica makes at once; of one app, a quarter of that.",
        check=at_least(1),
    )
    catalog_ttl_s: float = setting(
        10.0, "Age at which a cached route is read again.", unit="s", check=at_least(0)
    )
    shutdown_notice_s: float = setting(
        1.0,
        "How long a stopping replica still takes calls, so that load balancers notice.",
        unit="s",
        check=at_least(0),
    )
    shutdown_grace_s: float = setting(
        30.0, "How long calls may take to finish when the api stops.", unit="s", check=at_least(0)
    )
