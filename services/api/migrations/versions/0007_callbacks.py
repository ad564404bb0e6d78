"""Who is called back when an async call has ended, what became of it, and what signs it."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def upgrade() -> None:
    """Make the tables. Each statement commits by itself, so each may be run again."""
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS callbacks (
            call_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
            app VARCHAR(30) NOT NULL,
            url VARCHAR(2048) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            content_type VARCHAR(255) NOT NULL,
            state VARCHAR(16) NOT NULL,
            due_ms BIGINT NULL,
            attempts INT NOT NULL DEFAULT 0,
            tries JSON NULL,
            KEY callbacks_due (state, due_ms)
        ) {_TABLE}
        """
    )
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS callback_secrets (
            app VARCHAR(30) NOT NULL PRIMARY KEY,
            secret VARCHAR(128) NOT NULL,
            previous VARCHAR(128) NULL,
            previous_until_ms BIGINT NOT NULL DEFAULT 0
        ) {_TABLE}
        """
    )


def downgrade() -> None:
    """Remove them, with all that is in them."""
    op.execute("DROP TABLE callbacks")
    op.execute("DROP TABLE callback_secrets")
