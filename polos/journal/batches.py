"""Children that one step starts together: the step's own row, and what is read back of them."""

from __future__ import annotations

from sqlalchemy import bindparam, literal, select

from polos.journal.runs import R
from polos.journal.statements import Part, Statement, Unit, now, texts_of
from polos.journal.states import StepStatus
from polos.journal.steps import insert_step

P = bindparam

_BATCH = Statement(
    insert_step(status=literal(StepStatus.COMPLETED.value), tries=literal(0), seq=R.seq, finished_at=now())
)


def in_batch(creation: Unit, name: str, *, position: int) -> Unit:
    """Return a unit that creates children with one more step: the one that stands for all of them."""
    params = {**creation.parts[0].params, "name": name, "kind": "batch", "position": position}
    return creation.followed_by(Part(_BATCH, params, guard=False))


READ_CREATED = Statement(
    select(R.id, R.created_at).where(R.id.op("IN")(texts_of(P("runs", type_=R.id.type))))
)
READ_CHILD_NAMES = Statement(select(R.parent_step, R.name).where(R.parent_id == P("run")))
