"""How calls of a route share containers, and how many are kept ready.

MySQL commits each `ALTER TABLE` by itself and knows no `ADD COLUMN IF NOT EXISTS`: what is there
already is looked up, so that a start that was cut short may be repeated. One statement makes both
columns and the index, or nothing. Replicas of the version before go on writing routes: the
columns have defaults.
"""

import sqlalchemy
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and the index by which wanted sandboxes are found."""
    columns = {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("routes")}
    if "min_sandboxes" not in columns:
        op.execute(
            """
            ALTER TABLE routes
                ADD COLUMN isolation VARCHAR(16) NOT NULL DEFAULT 'sandbox',
                ADD COLUMN min_sandboxes INT NOT NULL DEFAULT 0,
                ADD KEY routes_wanted (min_sandboxes)
            """
        )


def downgrade() -> None:
    """Remove them."""
    op.execute(
        """
        ALTER TABLE routes
            DROP KEY routes_wanted,
            DROP COLUMN min_sandboxes,
            DROP COLUMN isolation
        """
    )
