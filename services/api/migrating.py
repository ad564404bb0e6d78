"""How does the database get its tables? By migrations, run once however many replicas start.

Blocking, for a thread: Alembic and its driver are.
"""

import hashlib
from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy
import structlog
from sqlalchemy.exc import OperationalError

from shared import urls
from shared.errors import MillraceError, Unavailable

SCRIPTS = Path(__file__).parent / "migrations"
#: How long to wait for another replica's migrations before saying so in the log, in seconds.
LOCK_WAIT_S = 10
CONNECT_TIMEOUT_S = 5

log = structlog.get_logger()


class DatabaseTooNew(MillraceError):
    """The database was migrated by a newer version of Millrace: run that one."""


def migrate(db_url: str) -> None:
    """Bring the database's tables up to date.

    Raises `Unavailable` if MySQL does not answer, `DatabaseTooNew` if it has unknown tables.
    """
    where = urls.parse_mysql(db_url)
    address = sqlalchemy.URL.create(
        "mysql+pymysql", where.user, where.password, where.host, where.port, where.name
    )
    engine = sqlalchemy.create_engine(
        address,
        poolclass=sqlalchemy.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "charset": "utf8mb4"},
    )
    try:
        with engine.connect() as connection:
            _lock(connection, where.name)
            _upgrade(connection)
    except OperationalError as error:
        raise Unavailable(f"MySQL does not answer: {error.orig}") from error
    finally:
        engine.dispose()


def _lock(connection: sqlalchemy.Connection, database: str) -> None:
    """Wait until no other replica migrates; the lock ends with the connection."""
    name = "millrace-" + hashlib.sha256(database.encode()).hexdigest()[:32]
    query = sqlalchemy.text("SELECT GET_LOCK(:name, :wait_s)")
    while connection.execute(query, {"name": name, "wait_s": LOCK_WAIT_S}).scalar() != 1:
        log.info("waiting_for_another_replicas_migrations", database=database)


def _upgrade(connection: sqlalchemy.Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        if "Can't locate revision" in str(error):
            raise DatabaseTooNew from error
        raise
