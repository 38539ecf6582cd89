"""Runs migrations on the connection handed over by `polos.journal.schema`."""

from typing import Any

from alembic import context

from polos.faultpoints import faultpoint
from polos.journal.tables import JournalTable


def _applied(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    faultpoint("in_upgrade", step.up_revision_id)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=JournalTable.metadata,
    render_as_batch=True,  # SQLite changes tables by copying them
    version_table="polos_schema",
    on_version_apply=_applied,
)
with context.begin_transaction():
    context.run_migrations()
