"""After a restart of the database: which runs of this worker it no longer knows as they are known here.

A server that answers commits before they are safe (``synchronous_commit = off``, a standby that lags) comes
back without the last ones. Who went on from them would leave holes in journals, and wait for children that
are not there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Sequence

from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.engine.signals import Fenced
from polos.engine.tasks import start_apart
from polos.journal.comparing import READ_FENCES, READ_SEQS
from polos.journal.statements import Row
from polos.journal.states import RunStatus

logger = logging.getLogger("polos.worker")

RUNS_AT_ONCE = 200  # are compared with one read
DROP_SECONDS = 0.2  # for the code of a run that is dropped


async def find_lost(runtime: Runtime) -> set[str]:
    """Drop the runs that go on from what the database has lost, and return their ids.

    The audit hands back those it still takes for this worker's.
    """
    held = list(runtime.executions.values())
    lost = [
        execution
        for place in range(0, len(held), RUNS_AT_ONCE)
        for execution in await _disagreeing(runtime, held[place : place + RUNS_AT_ONCE])
    ]
    for execution in lost:
        execution.closing = execution.closing or Fenced(execution.run_id)  # at once: it writes no more
        start_apart(drop(execution))
    if lost:
        logger.warning(
            "The database was started again without some of the commits it had answered: %d of %d runs of "
            "this worker are executed again from what it still has. Check its synchronous_commit",
            len(lost),
            len(held),
        )
    return {execution.run_id for execution in lost}


async def drop(execution: Execution) -> None:
    """Stop executing a run that belongs to somebody else, or is to be begun again."""
    await execution.put_away(Fenced(execution.run_id), patience_seconds=DROP_SECONDS)
    execution.news.set()


async def _disagreeing(runtime: Runtime, held: Sequence[Execution]) -> list[Execution]:
    ids = json.dumps([execution.run_id for execution in held])
    fences, steps = await asyncio.gather(
        runtime.journal.read(READ_FENCES, runs=ids), runtime.journal.read(READ_SEQS, runs=ids)
    )
    rows = {row[0]: row for row in fences}
    recorded: dict[str, dict[str, int | None]] = defaultdict(dict)
    for run_id, name, seq in steps:
        recorded[run_id][name] = seq
    return [
        execution
        for execution in held
        if not _agrees(execution, rows.get(execution.run_id), recorded[execution.run_id])
    ]


def _agrees(execution: Execution, row: Row | None, recorded: dict[str, int | None]) -> bool:
    if row is None:
        return False
    _, attempt, seq, wakes, status, owner = row
    if (attempt, status, owner) != (execution.claim.attempt, RunStatus.RUNNING, execution.worker_id):
        return False
    return execution.agrees(seq=seq, wakes=wakes, recorded=recorded)
