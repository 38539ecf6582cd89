"""Alembic migrations of the journal, the same for SQLite and PostgreSQL."""
