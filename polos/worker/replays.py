"""Replaying runs of a journal against the code of this process: what a worker is, without doing anything."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from polos.dispatch import Doorbell
from polos.encryption import codec_of
from polos.engine.replaying import Replay, replay
from polos.engine.runtime import Runtime
from polos.engine.tasks import install_task_factory
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.exports import Export, restore
from polos.journal.listing import READ_ALL_RUNS, READ_RUNS_OF_TREES
from polos.journal.runs import run_record
from polos.journal.statements import Rows, Unit
from polos.journal.writer import Journal
from polos.routes import Routes
from polos.settings import Settings
from polos.worker.definitions import resolve


class _ReadJournal(Journal):
    """A journal that nobody writes to."""

    async def do(self, unit: Unit) -> Rows:
        raise RuntimeError("A replay writes nothing; that it wanted to is a mistake of polos")


class _Nobody:
    """Who hears of what happens in a replay."""

    def publish(self, channel: str, message: str) -> None:
        return

    def is_watched(self, root_id: str) -> bool:
        return False

    def numbered(self, *_: Any, **__: Any) -> None:
        return

    def live(self, *_: Any, **__: Any) -> None:
        return

    def ring(self, *doorbells: Doorbell) -> None:
        return


async def replay_runs(
    database: Database, settings: Settings, *, roots: Sequence[str] | None = None
) -> list[Replay]:
    """Replay the runs of these trees, or all there are, and return what was found, the oldest run first.

    The database is only read. Definitions are those that this process has imported; their code outside of
    steps is executed. Runs of tools are left out: a tool does its work in its body.

    Raises:
        JournalUnavailableError: The database does not answer.
    """
    async with _runtime(database, settings) as runtime:
        if roots is None:
            rows = await runtime.journal.read(READ_ALL_RUNS)
        else:
            rows = await runtime.journal.read(READ_RUNS_OF_TREES, roots=json.dumps(list(roots)))
        runs = [run_record(row) for row in rows]
        return [await replay(runtime, run) for run in runs if run["kind"] != "tool"]


async def replay_export(export: Export, settings: Settings) -> list[Replay]:
    """Replay all runs of an export, in a database of its own that is moved to this version's schema.

    Raises:
        SchemaVersionError, ConfigurationError: It comes from a later version of polos, or does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="polos-replay-") as folder:
        database = restored(export, Path(folder), settings)
        return await replay_runs(database, settings)


def restored(export: Export, folder: Path, settings: Settings) -> Database:
    """Return a new SQLite database in `folder` with what an export holds, at this version's schema.

    `settings` have the keys of values that are encrypted.

    Raises:
        SchemaVersionError, ConfigurationError: It comes from a later version of polos, or does not fit.
    """
    database = Database(f"sqlite:///{folder / 'journal.db'}", codec=codec_of(settings.encryption_keys))
    restore(export, database)
    schema.upgrade(database)
    return database


@asynccontextmanager
async def _runtime(database: Database, settings: Settings) -> AsyncIterator[Runtime]:
    install_task_factory(asyncio.get_running_loop())
    journal = _ReadJournal.open(database)
    nobody: Any = _Nobody()
    try:
        yield Runtime(
            settings=settings,
            journal=journal,
            nudges=nobody,
            feed=nobody,
            dispatcher=nobody,
            routes=Routes(None),
            serves=(),
            resolve=resolve,
            worker_id="replay",
            project=settings.project_id,
            deployment=settings.deployment_id,
            may_start=_at_once,
        )
    finally:
        await journal.close()


async def _at_once() -> None:
    return
