"""Replaying journals that were exported from where programs run: does the code still fit them?"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from polos.engine.replaying import Replay, Verdict
from polos.errors import NonDeterminismError
from polos.journal.exports import read_export
from polos.settings import Settings
from polos.worker.replays import replay_export, restored


async def replay(
    path: str | Path, *, settings: Settings | None = None, may_deviate: bool = False
) -> list[Replay]:
    """Replay each run of an exported journal against the code of this process, without executing a step.

    ``polos runs export ID… --output journal.jsonl.gz`` writes such files; import the modules that define what
    is in them first. No model is called, no step and no tool runs, nothing is written. Code between steps is
    executed, as in every replay.

    Args:
        path: Of the file; of this version of polos or an earlier one.
        settings: By default those of an empty environment; `encryption_keys` read values that are encrypted.
        may_deviate: Return runs that deviate among the others instead of raising.

    Raises:
        NonDeterminismError: The code asks for other steps than a run recorded: live ones would be blocked.
            Names each run and its steps.
        ConfigurationError: The file is no export, or comes from a later version of polos.
    """
    found = await replay_export(read_export(Path(path)), settings or Settings())
    deviating = [one for one in found if one.verdict is Verdict.DEVIATES]
    if deviating and not may_deviate:
        told = "\n".join(f"{one.name} {one.run_id}: {one.reason}" for one in deviating)
        raise NonDeterminismError(f"{len(deviating)} of {len(found)} runs in {str(path)!r} deviate:\n{told}")
    return found


def content_of(path: Path, settings: Settings) -> bytes:
    """Return what an export holds as bytes of an SQLite database with this version's schema.

    Raises:
        ConfigurationError: The file is no export, or comes from a later version of polos.
    """
    with tempfile.TemporaryDirectory(prefix="polos-journal-") as folder:
        database = restored(read_export(path), Path(folder), settings)
        with closing(sqlite3.connect(database.path)) as driver:
            return driver.serialize()
