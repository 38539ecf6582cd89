"""Runs migrations on the connection handed over by `polos.journal.schema`."""

from alembic import context

from polos.journal.tables import JournalTable

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=JournalTable.metadata,
    render_as_batch=True,  # SQLite changes tables by copying them
    version_table="polos_schema",
)
with context.begin_transaction():
    context.run_migrations()
