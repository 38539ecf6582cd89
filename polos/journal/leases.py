"""Leases: duties that one sweeper at a time does, for looking is enough if one looks."""

from __future__ import annotations

from sqlalchemy import Float, bindparam, or_
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.statements import Part, Statement, Unit, now
from polos.journal.tables import Lease

P = bindparam
L = Lease.__table__.c  # type: ignore[attr-defined]
_until = now() + P("seconds", type_=Float)
_TAKE = Statement(
    upsert(Lease.__table__)  # type: ignore[attr-defined]
    .values(duty=P("duty"), holder=P("holder"), until=_until)
    .on_conflict_do_update(
        index_elements=["duty"],
        set_={"holder": P("holder"), "until": _until},
        where=or_(L.holder == P("holder"), L.until < now()),
    )
    .returning(L.holder)
)


def take_lease(duty: str, holder: str, *, seconds: float) -> Unit:
    """Take or prolong the lease of a duty; answers nothing while somebody else has it."""
    params = {"duty": duty, "holder": holder, "seconds": seconds}
    return Unit((Part(_TAKE, params, guard=False),), ())
