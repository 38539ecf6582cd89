"""Keys of the HTTP API, and what lists of definitions show."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of keys, and a column that older workers leave empty."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("last_four_digits", sa.String(), nullable=False),
        sa.Column("is_admin", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("last_used_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_key_digest", "api_key", ["digest"], unique=True)
    op.create_index("api_key_project", "api_key", ["project", "created_at"], unique=False)
    op.add_column("definition", sa.Column("details", sa.Text(), nullable=True))


def downgrade() -> None:
    """Refuse: a journal with live runs only moves forward."""
    raise RuntimeError("polos databases are not downgraded; restore a backup instead")
