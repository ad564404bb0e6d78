"""How many calls an app may have under way, and how often it may be called.

One statement makes all columns, or nothing. Replicas of the version before go on making apps: the
columns have defaults, and mean no limit.
"""

import sqlalchemy
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; a start that was cut short may be repeated."""
    columns = {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("apps")}
    if "max_inflight" not in columns:
        op.execute(
            """
            ALTER TABLE apps
                ADD COLUMN max_inflight INT NOT NULL DEFAULT 0,
                ADD COLUMN rate DOUBLE NOT NULL DEFAULT 0,
                ADD COLUMN burst INT NOT NULL DEFAULT 0
            """
        )


def downgrade() -> None:
    """Remove them."""
    op.execute("ALTER TABLE apps DROP COLUMN burst, DROP COLUMN rate, DROP COLUMN max_inflight")
