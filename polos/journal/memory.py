"""What agents remember of sessions: appended in the transaction that ends a run, read up to a watermark.

Messages are numbered under the lock of the session's row. Rows never change, so whoever knows how far a run
has read knows for ever what it has read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    not_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import RUNS
from polos.journal.sealing import SealedTexts
from polos.journal.statements import Part, Row, Statement, now, texts_with_tokens
from polos.journal.tables import Session, SessionMessage, SessionSummary

SESSIONS = Session.__table__  # type: ignore[attr-defined]
MESSAGES = SessionMessage.__table__  # type: ignore[attr-defined]
SUMMARIES = SessionSummary.__table__  # type: ignore[attr-defined]
N, M, Y = SESSIONS.c, MESSAGES.c, SUMMARIES.c
P = bindparam
KEY = ("project", "session_id", "agent")


class SessionKey(NamedTuple):
    """Whose memory: each agent has its own of a session."""

    project: str
    session_id: str
    agent: str

    def params(self) -> dict[str, Any]:
        """Return the parameters that say which rows are meant."""
        return self._asdict()


class NewMessage(NamedTuple):
    """An item of a conversation to append, as JSON text, and about how many tokens it has."""

    item: str
    tokens: int


@dataclass(frozen=True)
class NewSummary:
    """A summary a run has made of what was said before.

    Attributes:
        loaded: Number of the last loaded message that it stands for.
        own: It stands for so many of the run's own messages too, from the first; then for all loaded ones.
    """

    text: str
    tokens: int
    loaded: int
    own: int = 0


@dataclass(frozen=True)
class Remembered:
    """What a run leaves in the memory of its session when it ends.

    Attributes:
        messages: From its input to its answer; calls only with their outputs.
        given: So many of them are its input: all that is left by a run that fails.
        generation: Of the memory it has loaded; None when there was none.
        watermark: Number of the last message it has loaded.
    """

    key: SessionKey
    messages: tuple[NewMessage, ...]
    given: int
    generation: str | None = None
    watermark: int = 0
    summary: NewSummary | None = None

    def of_failure(self) -> Remembered:
        """Return what is left when the run fails: what it was asked."""
        return replace(self, messages=self.messages[: self.given], summary=None)


def is_of_key(columns: Any) -> ColumnElement[bool]:
    """Return the condition that a row is of the session and agent of the parameters."""
    return and_(*(columns[name] == P(name, type_=N[name].type) for name in KEY))


# -- appending, in the transaction that ends a run

_ended = RUNS.alias("ended_run")
_has_ended_so = exists().where(
    _ended.c.id == P("run"), _ended.c.attempt == P("attempt"), _ended.c.status == P("status")
)
_own = MESSAGES.alias("own_message")
# A run that failed has left its input; retried by a person, it leaves the rest.
_appended_before = (
    select(func.count()).where(_own.c.run_id == P("run", type_=M.run_id.type)).scalar_subquery()
)
_count = P("count", type_=N.last_message.type)
_session_columns: dict[str, Any] = {
    **{name: P(name, type_=N[name].type) for name in KEY},
    "generation": P("run", type_=N.generation.type),
    "last_message": _count - _appended_before,
    **{name: literal(0) for name in ("last_summary", "loads_after", "deleted_messages", "deleted_summaries")},
    "created_at": now(),
    "used_at": now(),
}
_new_session = upsert(SESSIONS).from_select(
    list(_session_columns),
    select(*_session_columns.values()).where(_has_ended_so, _appended_before < _count),
)
_COUNT = Statement(
    _new_session.on_conflict_do_update(
        index_elements=list(KEY),
        set_={"last_message": N.last_message + _new_session.excluded.last_message, "used_at": now()},
    )
)
_given = texts_with_tokens(P("messages", type_=SealedTexts())).table_valued(
    "place", "item", "tokens", name="given"
)
_message_columns: dict[str, Any] = {
    **{name: N[name] for name in KEY},
    "number": N.last_message - _count + 1 + _given.c.place,
    "run_id": P("run", type_=M.run_id.type),
    "place": _given.c.place,
    "item": _given.c.item,
    "tokens": _given.c.tokens,
    "created_at": now(),
}
_APPEND = Statement(
    upsert(MESSAGES)
    .from_select(
        list(_message_columns),
        select(*_message_columns.values())
        .select_from(SESSIONS.join(_given, literal(True)))
        .where(is_of_key(N), _has_ended_so, _given.c.place >= _appended_before),
    )
    .on_conflict_do_nothing()
)
_written = SUMMARIES.alias("written")
_is_written = exists().where(is_of_key(_written.c), _written.c.run_id == P("run"))
# Of its own messages it may stand for only if nobody's came between them and those it has loaded.
_stands_until = case(
    (
        N.last_message - _count == P("watermark"),
        P("loaded", type_=Y.last_message.type) + P("own", type_=Y.last_message.type),
    ),
    else_=P("loaded", type_=Y.last_message.type),
)
_summary_columns: dict[str, Any] = {
    **{name: N[name] for name in KEY},
    "number": N.last_summary + 1,
    "run_id": P("run", type_=Y.run_id.type),
    "text": P("text", type_=Y.text.type),
    "tokens": P("tokens", type_=Y.tokens.type),
    "first_message": N.deleted_messages + 1,
    "last_message": _stands_until,
    "created_at": now(),
}
_SUMMARISE = Statement(
    upsert(SUMMARIES)
    .from_select(
        list(_summary_columns),
        select(*_summary_columns.values()).where(
            is_of_key(N),
            N.generation == P("generation"),  # else what it stands for was deleted
            _stands_until >= N.loads_after,  # else another run's stands for more
            _stands_until > N.deleted_messages,
            _has_ended_so,
            not_(_is_written),
        ),
    )
    .on_conflict_do_nothing()
)
_newest = (is_of_key(Y), Y.number == N.last_summary + 1)
_LOAD_SUMMARY = Statement(
    update(SESSIONS)
    .where(is_of_key(N), exists().where(*_newest))
    .values(
        last_summary=N.last_summary + 1,
        summary=N.last_summary + 1,
        loads_after=select(Y.last_message).where(*_newest).scalar_subquery(),
    )
)


def parts_of_end(remembered: Remembered | None, ending: dict[str, Any]) -> tuple[Part, ...]:
    """Return what appends the messages of a run that ends; `ending` are the parameters of the end.

    For the transaction of that end, behind everything else: rows of sessions are locked last. Repeated, it
    changes nothing.
    """
    if remembered is None or not remembered.messages:
        return ()
    params = {
        **{name: ending[name] for name in ("run", "attempt", "status")},
        **remembered.key.params(),
        "count": len(remembered.messages),
        "messages": json.dumps(remembered.messages, ensure_ascii=False),
    }
    parts = [Part(_COUNT, params, guard=False), Part(_APPEND, params, guard=False)]
    if remembered.summary is not None:
        summary = {
            **params,
            **vars(remembered.summary),
            "generation": remembered.generation or ending["run"],
            "watermark": remembered.watermark,
        }
        parts += [Part(_SUMMARISE, summary, guard=False), Part(_LOAD_SUMMARY, summary, guard=False)]
    return tuple(parts)


def sessions_of(remembered: Remembered | None) -> tuple[SessionKey, ...]:
    """Return whose rows `parts_of_end` locks."""
    return () if remembered is None or not remembered.messages else (remembered.key,)


# -- loading


@dataclass(frozen=True)
class Watermark:
    """How far a run has read the memory of its session, so that anybody can read the same again.

    Attributes:
        generation: Of the memory; None when there was none.
        after: Messages up to this number are not loaded.
        until: The last one that is.
        summary: Number of the summary that stands for those before.
        tokens: About so many are loaded.
    """

    session_id: str
    agent: str
    generation: str | None = None
    after: int = 0
    until: int = 0
    summary: int | None = None
    tokens: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return self.summary is None and self.until <= self.after


_loaded_tokens = func.coalesce(
    select(func.sum(M.tokens))
    .where(*(M[name] == N[name] for name in KEY), M.number > N.loads_after)
    .scalar_subquery(),
    0,
) + func.coalesce(
    select(Y.tokens).where(*(Y[name] == N[name] for name in KEY), Y.number == N.summary).scalar_subquery(), 0
)
READ_WATERMARK = Statement(
    select(N.generation, N.loads_after, N.last_message, N.summary, _loaded_tokens).where(is_of_key(N))
)


def watermark_of(key: SessionKey, rows: Sequence[Row]) -> Watermark:
    """Return what `READ_WATERMARK` answered."""
    if not rows:
        return Watermark(key.session_id, key.agent)
    generation, after, until, summary, tokens = rows[0]
    return Watermark(key.session_id, key.agent, generation, after, until, summary, int(tokens))


_history = (is_of_key(M), M.number > P("after"), M.number <= P("until"))
READ_HISTORY = Statement(
    union_all(
        select(literal(0).label("number"), Y.text.label("said")).where(
            is_of_key(Y), Y.number == P("summary", type_=Y.number.type)
        ),
        select(M.number.label("number"), M.item.label("said")).where(*_history),
    ).order_by("number")
)


def history_params(project: str, watermark: Watermark) -> dict[str, Any]:
    """Return the parameters with which `READ_HISTORY` reads what a run has loaded.

    It answers (0, text of the summary), if there is one, then (number, item as JSON text) in order.
    """
    return {
        **SessionKey(project, watermark.session_id, watermark.agent).params(),
        "after": watermark.after,
        "until": watermark.until,
        "summary": watermark.summary,
    }
