"""Whether a process has the key that the newest run is encrypted with, known when it starts."""

from __future__ import annotations

from sqlalchemy import select

from polos.journal.database import Database
from polos.journal.runs import R
from polos.journal.statements import Statement

# By an index: the newest run of one project.
_NEWEST = Statement(select(R.input).order_by(R.project.desc(), R.created_at.desc()).limit(1))


def check_key(database: Database) -> None:
    """Return if the newest input can be read.

    Raises:
        EncryptionError: It is encrypted with a key that is not here.
        JournalUnavailableError: The database does not answer.
    """
    connection = database.connect()
    try:
        connection.read(_NEWEST, {})
    finally:
        connection.close()
