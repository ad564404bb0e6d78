"""How often a route's async calls are tried, and how attempts before the last one failed.

Replicas of the version before go on writing routes: to them the new columns are absent, and have
their defaults.
"""

import sqlalchemy
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = {"max_attempts": 3, "retries": 0, "retry_delay": 1}


def upgrade() -> None:
    """Add columns and table; a start that was cut short may be repeated."""
    columns = {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("routes")}
    for name, default in _COLUMNS.items():
        if name not in columns:
            op.execute(f"ALTER TABLE routes ADD COLUMN {name} INT NOT NULL DEFAULT {default}")
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS attempts (
            call_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            number INT NOT NULL,
            code VARCHAR(32) NOT NULL,
            message TEXT NOT NULL,
            finished_ms BIGINT NOT NULL,
            started_ms BIGINT NULL,
            exit_code INT NULL,
            runner_id VARCHAR(128) NOT NULL,
            log MEDIUMBLOB NOT NULL,
            PRIMARY KEY (call_id, number)
        ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
        """
    )


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE attempts")
    for name in _COLUMNS:
        op.execute(f"ALTER TABLE routes DROP COLUMN {name}")
