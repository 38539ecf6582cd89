"""Sessions over HTTP, as far as the runs of agents tell of them."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from polos.journal.database import Connection
from polos.journal.runs import READ_RUN, run_record
from polos.journal.sessions import TURN_SUMS, SessionPage, read_sessions, read_tool_calls, read_turns
from polos.journal.states import RunStatus
from polos.records import api_time
from polos.server.errors import missing
from polos.server.fields import (
    JsonAnswer,
    Label,
    Limit,
    Moment,
    Offset,
    ServicesDep,
    Word,
    problems,
    seconds_of,
)
from polos.server.gate import CallerDep
from polos.server.run_lists import value_of

PREVIEW_CHARACTERS = 200
router = APIRouter(tags=["sessions"])


class SessionShown(BaseModel):
    """A session, by the newest run of an agent in it."""

    execution_id: str
    agent_id: str
    session_id: str | None
    status: str
    user_message_preview: str | None
    created_at: str
    total_tokens: int
    tool_call_count: int
    approval_count: int
    error: str | None
    execution_count: int


class Sessions(BaseModel):
    """Sessions, those with the newest runs first."""

    sessions: list[SessionShown]


class TimelineEntry(BaseModel):
    """What happened in a run, and when."""

    entry_type: Literal["user_message", "assistant_message", "tool_call"]
    timestamp: str
    data: dict[str, Any]


class SessionDetail(BaseModel):
    """A run of an agent with all that was said in it."""

    execution_id: str
    agent_id: str
    session_id: str | None
    status: str
    created_at: str
    started_at: str | None
    completed_at: str | None
    duration_ms: int | None
    payload: Any
    result: Any
    error: str | None
    total_cost: float | None
    total_input_tokens: int
    total_output_tokens: int
    total_tokens: int
    tool_call_count: int
    timeline: list[TimelineEntry]
    approvals: list[dict[str, Any]]


@router.get("/sessions", response_model=Sessions, responses=problems())
async def list_sessions(
    caller: CallerDep,
    services: ServicesDep,
    limit: Limit = 50,
    offset: Offset = 0,
    start_time: Annotated[Moment | None, Query(description="With runs created then or later.")] = None,
    end_time: Annotated[Moment | None, Query(description="With runs created before.")] = None,
    status: Annotated[list[RunStatus] | None, Query(description="Of the newest run.")] = None,
    agent_id: Label | None = None,
) -> JsonAnswer:
    """Return sessions of agents that were started by a client, among the newest 10,000 runs."""
    wanted = SessionPage(
        project=caller.project,
        limit=limit,
        offset=offset,
        agent=agent_id,
        statuses=[each.value for each in status or ()],
        since=seconds_of(start_time),
        until=seconds_of(end_time),
    )
    found = await services.journal.call(lambda journal: read_sessions(journal, wanted))
    return JsonAnswer(Sessions(sessions=[_shown(session) for session in found]))


def _shown(session: dict[str, Any]) -> SessionShown:
    return SessionShown(
        execution_id=session["id"],
        agent_id=session["name"],
        session_id=session["session_id"],
        status=session["status"],
        user_message_preview=_preview(session["input_start"]),
        created_at=api_time(session["created_at"]) or "",
        total_tokens=session["total_tokens"],
        tool_call_count=session["tool_call_count"],
        approval_count=0,
        error=session["error"],
        execution_count=session["run_count"],
    )


def _preview(input_start: str | None) -> str | None:
    """Return the first words of an agent's input, of which there may be the beginning only."""
    marker = '"input":"'
    _, found, rest = (input_start or "").partition(marker)
    if not found:
        return None
    try:
        text, _ = json.JSONDecoder().raw_decode(f'"{rest}')
    except ValueError:  # it goes on beyond what was read
        text = rest
    return str(text)[:PREVIEW_CHARACTERS]


@router.get("/sessions/{execution_id}", response_model=SessionDetail, responses=problems(404))
async def read_session(caller: CallerDep, services: ServicesDep, execution_id: Word) -> JsonAnswer:
    """Return a run of an agent with its messages and tool calls."""
    detail = await services.journal.call(lambda journal: _detail(journal, caller.project, execution_id))
    if detail is None:
        raise missing(f"execution {execution_id!r} of an agent", caller.project)
    return JsonAnswer(detail)


def _detail(journal: Connection, project: str, run_id: str) -> SessionDetail | None:
    rows = journal.read(READ_RUN, {"run": run_id})
    run = run_record(rows[0]) if rows else None
    if run is None or run["project"] != project or run["kind"] != "agent":
        return None
    turns, calls = read_turns(journal, run_id), read_tool_calls(journal, run_id)
    took = run["finished_at"] - run["started_at"] if run["finished_at"] and run["started_at"] else None
    return SessionDetail(
        execution_id=run["id"],
        agent_id=run["name"],
        session_id=run["session_id"],
        status=run["status"],
        created_at=api_time(run["created_at"]) or "",
        started_at=api_time(run["started_at"]),
        completed_at=api_time(run["finished_at"]),
        duration_ms=None if took is None else round(took * 1000),
        payload=value_of(run["input"]),
        result=value_of(run["output"]),
        error=run["error"],
        total_cost=run["cost"],
        total_input_tokens=run["input_tokens"],
        total_output_tokens=run["output_tokens"],
        total_tokens=run["total_tokens"],
        tool_call_count=len(calls),
        timeline=_timeline(run, turns, calls),
        approvals=[],
    )


def _timeline(
    run: dict[str, Any], turns: list[dict[str, Any]], calls: list[dict[str, Any]]
) -> list[TimelineEntry]:
    given = value_of(run["input"])
    content = given.get("input") if isinstance(given, dict) else given
    entries = [(run["created_at"], "user_message", {"content": content})]
    entries += [
        (turn["finished_at"], "assistant_message", _said(turn)) for turn in turns if turn["finished_at"]
    ]
    entries += [(call["created_at"], "tool_call", _called(call)) for call in calls]
    entries.sort(key=lambda entry: entry[0])
    return [
        TimelineEntry.model_validate({"entry_type": kind, "timestamp": api_time(at), "data": data})
        for at, kind, data in entries
    ]


def _said(turn: dict[str, Any]) -> dict[str, Any]:
    answer = value_of(turn["output"]) or {}
    kept = ("content", "tool_calls", "usage", "model")
    said = {**{name: answer.get(name) for name in kept}, "error": turn["error"]}
    return {**said, "usage": _used(turn)} if turn["calls"] else said


def _used(turn: dict[str, Any]) -> dict[str, Any]:
    """Return what all attempts of a turn used."""
    used = {name: turn[name] for name in TURN_SUMS}
    return {**used, "total_tokens": turn["input_tokens"] + turn["output_tokens"]}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "execution_id": call["id"],
        "tool_name": call["name"],
        "status": call["status"],
        "arguments": value_of(call["input"]),
        "result": value_of(call["output"]),
        "error": call["error"],
        "completed_at": api_time(call["finished_at"]),
    }
