"""What runs of a project wait for people to answer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Text, bindparam, or_, select

from polos.journal.runs import RUNS, R
from polos.journal.statements import Statement, one_of
from polos.journal.states import LIVE, StepStatus
from polos.journal.steps import STEPS, S

P = bindparam


@dataclass(frozen=True)
class Question:
    """An open question. `asked` is JSON text, times are seconds since the epoch; `run_id` is who asks."""

    root_id: str
    root_name: str
    run_id: str
    run_name: str
    session_id: str | None
    step: str
    asked: str
    asked_at: float
    expires_at: float | None


_COLUMNS = (R.root_id, R.root_name, R.id, R.name, R.session_id, S.name, S.input, S.started_at, S.ring_at)
assert len(_COLUMNS) == len(fields(Question))
_session, _root = P("session", type_=Text), P("root", type_=Text)
READ_QUESTIONS = Statement(
    select(*_COLUMNS)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(
        R.project == P("project"),
        one_of(R.status, LIVE),
        S.kind == "suspend",
        S.status == StepStatus.RUNNING.value,
        or_(_session.is_(None), R.session_id == _session),
        or_(_root.is_(None), R.root_id == _root),
    )
    .order_by(S.started_at, S.run_id, S.name)
    .limit(P("limit"))
)


def questions_of(
    project: str, *, session_id: str | None = None, root_id: str | None = None, limit: int
) -> dict[str, Any]:
    """Return the parameters of `READ_QUESTIONS`, which answers columns of `Question`, the oldest first."""
    return {"project": project, "session": session_id, "root": root_id, "limit": limit}
