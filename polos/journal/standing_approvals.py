"""Approvals that stand: an equal call of a tool, by the same agent in the same session, asks nobody."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Float, bindparam, delete, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.statements import Part, Statement, Unit, now
from polos.journal.tables import StandingApproval

A = StandingApproval.__table__.c  # type: ignore[attr-defined]
P = bindparam
MAX_REMOVED = 500

_TABLE = StandingApproval.__table__  # type: ignore[attr-defined]
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class AllowedCall:
    """A call of a tool that may be allowed for a session.

    Attributes:
        agent: Name of the definition that calls; empty for none.
        arguments: JSON data.
    """

    project: str
    session_id: str
    agent: str
    tool: str
    arguments: Any

    @property
    def arguments_text(self) -> str:
        """The arguments as equal ones are always written."""
        return json.dumps(self.arguments, sort_keys=True, separators=(",", ":"))

    @property
    def id(self) -> str:
        """What equal calls have in common."""
        parts = [self.project, self.session_id, self.agent, self.tool, self.arguments_text]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Standing:
    """An approval that stands. Times are seconds since the epoch, `arguments` JSON text."""

    id: str
    session_id: str
    agent: str
    tool: str
    arguments: str
    run_id: str
    answered_by: str | None
    created_at: float


_SHOWN = tuple(A[spec.name] for spec in fields(Standing))
_days = P("days", type_=Float)
_still_stands = or_(_days == 0, A.created_at > now() - _days * _DAY_SECONDS)
READ_STANDING = Statement(select(A.id).where(A.id == P("id"), _still_stands))
_LIST = Statement(
    select(*_SHOWN).where(A.project == P("project"), _still_stands).order_by(A.created_at.desc(), A.id)
)
_columns = ("id", "project", "session_id", "agent", "tool", "arguments", "run_id", "answered_by")
_given = upsert(_TABLE).values(**{name: P(name) for name in _columns}, created_at=now())
_ALLOW = Statement(
    _given.on_conflict_do_update(
        index_elements=[A.id],
        set_={name: _given.excluded[name] for name in ("run_id", "answered_by", "created_at")},
    ).returning(A.id)
)
_REVOKE = Statement(delete(_TABLE).where(A.id == P("id"), A.project == P("project")).returning(A.id))
_old = select(A.id).where(_days > 0, A.created_at <= now() - _days * _DAY_SECONDS).limit(P("limit"))
_REMOVE_OLD = Statement(delete(_TABLE).where(A.id.in_(_old)).returning(A.id))


def allow(call: AllowedCall, *, run_id: str, answered_by: str | None) -> Unit:
    """Let a call stand approved from now on; harmless to repeat."""
    params = {
        "id": call.id,
        "project": call.project,
        "session_id": call.session_id,
        "agent": call.agent,
        "tool": call.tool,
        "arguments": call.arguments_text,
        "run_id": run_id,
        "answered_by": answered_by,
    }
    return Unit((Part(_ALLOW, params),), ())


def listing(project: str, *, days: float) -> tuple[Statement, dict[str, Any]]:
    """Return the query for the columns of `Standing`, the newest first."""
    return _LIST, {"project": project, "days": days}


def revoke(approval_id: str, *, project: str) -> Unit:
    """Let a call be asked about again; answers its id, or nothing when there is no such approval."""
    return Unit((Part(_REVOKE, {"id": approval_id, "project": project}),), ())


def remove_old(days: float, *, limit: int = MAX_REMOVED) -> Unit:
    """Remove approvals that stand no longer; answers a row for each. 0 days: they stand for ever."""
    return Unit((Part(_REMOVE_OLD, {"days": days, "limit": limit}),), ())
