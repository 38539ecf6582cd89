"""`polos gc`: removes at once what sweepers would remove in the course of the day."""

from __future__ import annotations

from typing import Annotated

import typer

from polos.cli.journal import reading
from polos.errors import ConfigurationError
from polos.journal.database import Connection
from polos.journal.forgetting import COUNT_OLD_SESSIONS
from polos.journal.retention import COUNT_OLD_TREES, MAX_EVENTS, MAX_TREES, remove_old_events
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.settings import Settings
from polos.worker.duties.retention import days_kept, remove_trees
from polos.worker.duties.sessions import remove_sessions


def remove_old(
    days: Annotated[
        float | None,
        typer.Option(min=0.0, help="Older than so many days. Default: POLOS_RETENTION_DAYS and its like."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
) -> None:
    """Remove runs that ended long ago, with all below them, old events, and memories of sessions long unused.

    Live trees are never touched, nor what they have loaded. For sessions POLOS_SESSION_RETENTION_DAYS counts.
    """
    settings = Settings.from_environment()
    kept = days_kept(settings) if days is None else dict.fromkeys(days_kept(settings), days)
    sessions = settings.session_retention_days
    if days == 0 or not any((*kept.values(), sessions)):
        raise ConfigurationError(
            "Everything is kept for ever (0 days); say --days N to remove what ended longer ago than that"
        )
    with reading() as journal:
        if dry_run:
            [(trees,)] = journal.read(COUNT_OLD_TREES, kept)
            [(memories,)] = journal.read(COUNT_OLD_SESSIONS, {"days": sessions}) if sessions else [(0,)]
            typer.echo(f"{trees} runs, with all below them, and {memories} memories would be removed.")
        else:
            typer.echo(_removed(_Journal(journal), kept, session_days=sessions))


def _removed(journal: _Journal, kept: dict[str, float], *, session_days: float) -> str:
    trees = events = memories = 0
    while found := remove_trees(journal, kept):
        trees += found
        if found < MAX_TREES:
            break
    while kept["events"] and (found := len(journal.do(remove_old_events(kept["events"])))):
        events += found
        if found < MAX_EVENTS:
            break
    while (removed := remove_sessions(journal, session_days)).memories:
        memories += removed.memories
        if not removed.is_more:
            break
    return f"Removed {trees} runs, with all below them, {events} events and {memories} memories of sessions."


class _Journal:
    """A connection, as duties use it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, statement: Statement, params: Params) -> Rows:
        return self._connection.read(statement, params)

    def do(self, unit: Unit) -> Rows:
        return self._connection.commit([unit])[0]
