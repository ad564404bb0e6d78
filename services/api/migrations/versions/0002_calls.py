"""Calls, with their logs and results.

Call ids are UUIDv7, so the primary key grows at its end, "newest first" is its order, and a span
of time is a span of it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = "call_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY"
_TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def upgrade() -> None:
    """Make the tables. Each statement commits by itself, so each may be run again."""
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS calls (
            {_ID},
            app VARCHAR(30) NOT NULL,
            path VARCHAR(512) NOT NULL,
            image VARCHAR(512) NOT NULL,
            mode VARCHAR(8) NOT NULL,
            queued_ms BIGINT NOT NULL,
            status VARCHAR(16) NOT NULL,
            attempt INT NOT NULL,
            started_ms BIGINT NULL,
            finished_ms BIGINT NULL,
            code VARCHAR(32) NULL,
            message TEXT NULL,
            exit_code INT NULL,
            digest VARCHAR(128) NULL,
            runner_id VARCHAR(128) NULL,
            peak_memory_bytes BIGINT NULL,
            progress INT NOT NULL,
            KEY calls_of_app (app, call_id),
            KEY calls_of_route (app, path(191), call_id),
            KEY calls_by_status (app, status, call_id)
        ) {_TABLE}
        """
    )
    op.execute(f"CREATE TABLE IF NOT EXISTS logs ({_ID}, body MEDIUMBLOB NOT NULL) {_TABLE}")
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS results (
            {_ID},
            truncated BOOLEAN NOT NULL,
            body MEDIUMBLOB NOT NULL
        ) {_TABLE}
        """
    )


def downgrade() -> None:
    """Remove them, with all that is in them."""
    for table in ("results", "logs", "calls"):
        op.execute(f"DROP TABLE {table}")
