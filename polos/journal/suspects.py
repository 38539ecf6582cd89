"""Suspects: what a worker executed that died, and that has recorded nothing since. Any may be the cause."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from polos.journal.runs import R
from polos.journal.statements import Statement
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import S

P = bindparam

READ_RUN_CRASHES = Statement(
    select(R.crashes).where(R.id == P("run"), R.status == RunStatus.QUEUED.value, R.crashes > 0)
)
READ_TURN_CRASHES = Statement(
    select(S.crashes).where(
        S.run_id == P("run"),
        S.name == P("name"),
        S.status == StepStatus.SCHEDULED.value,
        S.crashes > 0,
    )
)
