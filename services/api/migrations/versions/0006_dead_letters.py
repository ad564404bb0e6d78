"""Async calls that failed for good, with all that running them needs; and what was made of them.

A parcel is kept in parts, so that no statement and no row is larger than the server takes.
"""

import sqlalchemy
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"
_TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def upgrade() -> None:
    """Add tables and column; a start that was cut short may be repeated."""
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS dead_letters (
            call_id {_ID} NOT NULL PRIMARY KEY,
            app VARCHAR(30) NOT NULL,
            path VARCHAR(512) NOT NULL,
            code VARCHAR(32) NOT NULL,
            message TEXT NOT NULL,
            attempt INT NOT NULL,
            died_ms BIGINT NOT NULL,
            head BLOB NOT NULL,
            size_bytes BIGINT NULL,
            redriven_as {_ID} NULL,
            redriven_ms BIGINT NULL,
            KEY dead_letters_of_app (app, call_id),
            KEY dead_letters_by_age (died_ms)
        ) {_TABLE}
        """
    )
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS dead_letter_parts (
            call_id {_ID} NOT NULL,
            part INT NOT NULL,
            body MEDIUMBLOB NOT NULL,
            PRIMARY KEY (call_id, part),
            CONSTRAINT dead_letter_of_part FOREIGN KEY (call_id)
                REFERENCES dead_letters (call_id) ON DELETE CASCADE
        ) {_TABLE}
        """
    )
    columns = {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("calls")}
    if "redrive_of" not in columns:
        op.execute(f"ALTER TABLE calls ADD COLUMN redrive_of {_ID} NULL")


def downgrade() -> None:
    """Remove them, with all that is in them."""
    op.execute("ALTER TABLE calls DROP COLUMN redrive_of")
    op.execute("DROP TABLE dead_letter_parts")
    op.execute("DROP TABLE dead_letters")
