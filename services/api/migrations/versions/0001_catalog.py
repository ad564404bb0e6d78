"""Apps and their routes.

Names are compared byte by byte: `Hello` and `hello` are two.
"""

from alembic import op

revision = "0001"
down_revision = None

_TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def upgrade() -> None:
    """Make the tables. Each statement commits by itself, so each may be run again."""
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS apps (
            name VARCHAR(30) NOT NULL PRIMARY KEY,
            config JSON NULL
        ) {_TABLE}
        """
    )
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS routes (
            app_name VARCHAR(30) NOT NULL,
            path VARCHAR(512) NOT NULL,
            image VARCHAR(256) NOT NULL,
            memory INT NOT NULL,
            cpus DOUBLE NOT NULL,
            headers JSON NOT NULL,
            `type` VARCHAR(16) NOT NULL,
            `format` VARCHAR(16) NOT NULL,
            max_concurrency INT NOT NULL,
            `timeout` INT NOT NULL,
            idle_timeout INT NOT NULL,
            config JSON NOT NULL,
            jwt_key TEXT NOT NULL,
            PRIMARY KEY (app_name, path),
            KEY routes_image (image),
            CONSTRAINT routes_app FOREIGN KEY (app_name) REFERENCES apps (name)
        ) {_TABLE}
        """
    )
