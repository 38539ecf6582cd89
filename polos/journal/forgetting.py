"""Deleting and replacing what agents remember of sessions.

Deleted first means: loaded no more. The rows go when no run is live that may have loaded them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.memory import (
    KEY,
    MESSAGES,
    SESSIONS,
    SUMMARIES,
    M,
    N,
    NewMessage,
    SessionKey,
    Y,
    is_of_key,
)
from polos.journal.runs import RUNS
from polos.journal.sealing import SealedTexts
from polos.journal.statements import Part, Statement, Unit, now, texts_with_tokens

P = bindparam
MAX_SESSIONS = 50  # at a time
GRACE_SECONDS = 60.0  # between the time of a deletion and its commit, at most: a run may begin in between
_DAY = 86400.0

_live = RUNS.alias("live_run")
_is_in_session = (
    _live.c.project == N.project,
    _live.c.session_id == N.session_id,
    _live.c.finished_at.is_(None),
)
_may_be_read = exists().where(
    *_is_in_session, _live.c.created_at <= N.deleted_at + literal(GRACE_SECONDS, Float)
)
_is_in_use = exists().where(*_is_in_session)

_DELETED: dict[str, Any] = {
    "generation": P("generation"),
    "summary": None,
    "loads_after": N.last_message,
    "deleted_messages": N.last_message,
    "deleted_summaries": N.last_summary,
    "deleted_at": now(),
}
_holds_any = or_(N.last_message > N.deleted_messages, N.summary.is_not(None))
_FORGET = Statement(
    update(SESSIONS).where(is_of_key(N), _holds_any).values(**_DELETED).returning(N.last_message)
)


def forget(key: SessionKey, generation: str) -> Unit:
    """Let no run load any more what is remembered now; answers a row, or nothing if there is nothing.

    Runs under way keep what they have loaded. `generation`: a new one, of random letters.
    """
    params = {**key.params(), "generation": generation}
    return Unit((Part(_FORGET, params),), (), order=key, sessions=(key,))


_MAY_REMOVE = Statement(
    update(SESSIONS)
    .where(is_of_key(N), N.deleted_at.is_not(None), ~_may_be_read)
    .values(deleted_at=N.deleted_at)
    .returning(N.deleted_messages)
)
_is_removable = exists().where(is_of_key(N), N.deleted_at.is_not(None), ~_may_be_read)


def _deleted_until(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(column).where(is_of_key(N)).scalar_subquery()


_REMOVE_MESSAGES = Statement(
    delete(MESSAGES).where(is_of_key(M), M.number <= _deleted_until(N.deleted_messages), _is_removable)
)
_REMOVE_SUMMARIES = Statement(
    delete(SUMMARIES).where(is_of_key(Y), Y.number <= _deleted_until(N.deleted_summaries), _is_removable)
)
_REMOVED = Statement(
    update(SESSIONS).where(is_of_key(N), N.deleted_at.is_not(None), ~_may_be_read).values(deleted_at=None)
)


def remove_forgotten(key: SessionKey) -> Unit:
    """Remove the rows that no run loads any more; answers nothing while a run is live that may have.

    Of a transaction of its own: `forget` must be true before it looks for such runs.
    """
    params = key.params()
    rest = (_REMOVE_MESSAGES, _REMOVE_SUMMARIES, _REMOVED)
    parts = (Part(_MAY_REMOVE, params), *(Part(statement, params, guard=False) for statement in rest))
    return Unit(parts, (), order=key, sessions=(key,))


# -- what a program writes

_count = P("count", type_=N.last_message.type)
_new: dict[str, Any] = {
    **{name: P(name, type_=N[name].type) for name in KEY},
    "generation": P("generation", type_=N.generation.type),
    "last_message": _count,
    "last_summary": P("summaries", type_=N.last_summary.type),
    "summary": P("summary", type_=N.summary.type),
    **dict.fromkeys(("loads_after", "deleted_messages", "deleted_summaries"), literal(0)),
    "created_at": now(),
    "used_at": now(),
}
_summaries = P("summaries", type_=N.last_summary.type)
_REPLACE = Statement(
    upsert(SESSIONS)
    .values(_new)
    .on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            **_DELETED,
            "last_message": N.last_message + _count,
            "last_summary": N.last_summary + _summaries,
            "summary": N.last_summary + P("summary", type_=N.summary.type),  # NULL, or the next one
            "used_at": now(),
        },
        where=N.generation != P("generation"),
    )
    .returning(N.last_message)
)
_given = texts_with_tokens(P("messages", type_=SealedTexts())).table_valued(
    "place", "item", "tokens", name="given"
)
_messages: dict[str, Any] = {
    **{name: N[name] for name in KEY},
    "number": N.last_message - _count + 1 + _given.c.place,
    "place": _given.c.place,
    "item": _given.c.item,
    "tokens": _given.c.tokens,
    "created_at": now(),
}
_is_replaced = (is_of_key(N), N.generation == P("generation"))
_WRITE_MESSAGES = Statement(
    upsert(MESSAGES)
    .from_select(
        list(_messages),
        select(*_messages.values()).select_from(SESSIONS.join(_given, literal(True))).where(*_is_replaced),
    )
    .on_conflict_do_nothing()
)
_summary: dict[str, Any] = {
    **{name: N[name] for name in KEY},
    "number": N.summary,
    "text": P("text", type_=Y.text.type),
    "tokens": P("text_tokens", type_=Y.tokens.type),
    "first_message": literal(0),  # of messages that are not here
    "last_message": N.loads_after,
    "created_at": now(),
}
_WRITE_SUMMARY = Statement(
    upsert(SUMMARIES)
    .from_select(list(_summary), select(*_summary.values()).where(*_is_replaced, N.summary.is_not(None)))
    .on_conflict_do_nothing()
)


def replace_memory(
    key: SessionKey, generation: str, messages: Sequence[NewMessage], *, summary: NewMessage | None
) -> Unit:
    """Remember these messages instead of what is remembered, behind a summary if there is one.

    Answers (number of the last message,). What was before is deleted as `forget` does it.
    """
    params = {
        **key.params(),
        "generation": generation,
        "count": len(messages),
        "messages": json.dumps(messages, ensure_ascii=False),
        "summaries": int(summary is not None),
        "summary": None if summary is None else 1,
    }
    parts = [Part(_REPLACE, params), Part(_WRITE_MESSAGES, params, guard=False)]
    if summary is not None:
        text = {**params, "text": summary.item, "text_tokens": summary.tokens}
        parts.append(Part(_WRITE_SUMMARY, text, guard=False))
    return Unit(tuple(parts), (), order=key, sessions=(key,))


# -- reading, for people


def _is_same_session(columns: Any) -> ColumnElement[bool]:
    return and_(*(columns[name] == N[name] for name in KEY))


AGENT_COLUMNS = (
    "agent",
    "last_message",
    "deleted_messages",
    "loads_after",
    "summary",
    "created_at",
    "used_at",
)
READ_AGENTS = Statement(
    select(*(N[name] for name in AGENT_COLUMNS))
    .where(N.project == P("project"), N.session_id == P("session_id"))
    .order_by(N.agent)
)

READ_ALL_MESSAGES = Statement(
    select(M.number, M.run_id, M.item, M.created_at)
    .select_from(MESSAGES.join(SESSIONS, _is_same_session(M)))
    .where(is_of_key(M), M.number > N.deleted_messages)
    .order_by(M.number)
)
READ_SUMMARIES = Statement(
    select(Y.text, Y.first_message, Y.last_message)
    .select_from(SUMMARIES.join(SESSIONS, _is_same_session(Y)))
    .where(is_of_key(Y), Y.number > N.deleted_summaries)
    .order_by(Y.number)
)

# -- what is kept no longer

_is_old = (
    N.used_at < select(now() - P("days", type_=Float) * literal(_DAY, Float)).scalar_subquery()
)  # along the index
READ_OLD_SESSIONS = Statement(
    select(*(N[name] for name in KEY))
    .where(_is_old, _holds_any, ~_is_in_use)
    .order_by(N.used_at)
    .limit(P("limit"))
)
COUNT_OLD_SESSIONS = Statement(
    select(func.count()).select_from(SESSIONS).where(_is_old, _holds_any, ~_is_in_use)
)
_FORGET_OLD = Statement(
    update(SESSIONS)
    .where(is_of_key(N), _is_old, _holds_any, ~_is_in_use)
    .values(**_DELETED)
    .returning(N.last_message)
)


def forget_old(key: SessionKey, generation: str, *, days: float) -> Unit:
    """Do what `forget` does, if nobody has used the session for so many days and no run of it is live."""
    params = {**key.params(), "generation": generation, "days": days}
    return Unit((Part(_FORGET_OLD, params),), (), order=key, sessions=(key,))


READ_FORGOTTEN = Statement(
    select(*(N[name] for name in KEY))
    .where(N.deleted_at.is_not(None), ~_may_be_read)
    .order_by(N.deleted_at)
    .limit(P("limit"))
)
_is_empty = (N.last_message == N.deleted_messages, N.deleted_at.is_(None), N.summary.is_(None))
_empty = SESSIONS.alias("empty_session")
_REMOVE_EMPTY = Statement(
    delete(SESSIONS).where(is_of_key(N), _is_old, *_is_empty, ~_is_in_use).returning(N.agent)
)
READ_EMPTY_SESSIONS = Statement(
    select(*(N[name] for name in KEY)).where(_is_old, *_is_empty, ~_is_in_use).limit(P("limit"))
)


def remove_empty(key: SessionKey, *, days: float) -> Unit:
    """Remove the row of a session of which nothing is left; answers a row, or nothing when it is in use."""
    return Unit((Part(_REMOVE_EMPTY, {**key.params(), "days": days}),), (), order=key, sessions=(key,))
