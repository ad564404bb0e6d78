"""What a route's image was before, and room for the digest that an image is pinned to.

One statement makes both changes, or nothing. Replicas of the version before go on writing routes:
to them the new column is absent, and NULL is an empty list.
"""

import sqlalchemy
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and widen the image's; a start that was cut short may be repeated."""
    columns = {column["name"] for column in sqlalchemy.inspect(op.get_bind()).get_columns("routes")}
    if "previous_images" not in columns:
        op.execute(
            """
            ALTER TABLE routes
                ADD COLUMN previous_images JSON NULL,
                MODIFY COLUMN image VARCHAR(512) NOT NULL
            """
        )


def downgrade() -> None:
    """Remove the column. Images keep their room: some may need it."""
    op.execute("ALTER TABLE routes DROP COLUMN previous_images")
