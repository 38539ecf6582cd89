"""Agents whose workers die at every commit: a replay asks for the same steps, and no model is asked twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from fleet import SETTINGS, TERMINAL, Fleet, Worker, until
from pydantic import BaseModel
from sqlalchemy import update

from polos import (
    Agent,
    CompactionConfig,
    GuardrailContext,
    GuardrailResult,
    StepExecutionError,
    WorkflowContext,
    tool,
    workflow,
)
from polos.agents.turn import execute_turn
from polos.dispatch import Doorbell
from polos.engine.runtime import NoSlot
from polos.engine.tasks import start_apart
from polos.errors import ModelError, ModelErrorKind
from polos.forking import forked_row, plan_fork
from polos.journal.database import Database
from polos.journal.forgetting import forget, remove_forgotten
from polos.journal.forks import create_fork
from polos.journal.memory import SessionKey
from polos.journal.recovery import due_turns
from polos.journal.retries import retry_ended
from polos.journal.runs import NewRun, unblock_run
from polos.journal.statements import Part, Statement, Unit
from polos.journal.steps import READ_STEP_DETAILS, READ_STEPS, STEPS, S, step_details
from polos.memory.items import unpaired
from polos.models.request import ModelRequest
from polos.step_names import shown
from polos.testing import ScriptedModel, tool_call
from polos.transport import ForkRequest
from polos.types import ToolCall, ToolCallFunction

LONG = "tea " * 200
THREE_DEATHS = Statement(
    update(STEPS).where(S.kind == "turn", S.status == "scheduled").values(crashes=3).returning(S.name)
)


class AgentFleet(Fleet):
    """A fleet whose workers make model calls, too."""

    model: ScriptedModel

    def hire(self, **options: Any) -> Worker:
        worker = super().hire(**options)
        worker.runtime.models = self.model
        return worker

    def ring(self, *doorbells: Doorbell) -> None:
        super().ring(*(bell for bell in doorbells if bell.step is None))
        for bell in doorbells:
            if bell.step is not None and self.workers:
                worker = self.workers[-1]
                task = start_apart(execute_turn(worker.runtime, bell.run_id, bell.step, NoSlot()))
                worker.tasks.add(task)
                task.add_done_callback(worker.tasks.discard)

    def sweep(self) -> None:
        super().sweep()
        for run_id, step, _, route, _ in self.do(due_turns(ring_again=0.0, ring_again_max=0.0)):
            self.ring(Doorbell(run_id, "turn", route, step=step))


@pytest.fixture
async def agents(sqlite: Database) -> AsyncIterator[AgentFleet]:
    running = AgentFleet(sqlite, replace(SETTINGS, max_agent_steps=3))
    yield running
    await running.close()


def said(request: ModelRequest) -> str:
    """Return the text of what a model is asked."""
    return json.dumps(request.messages)


async def lived(
    agents: AgentFleet, agent: str, payload: dict[str, Any], **values: Any
) -> tuple[Worker, dict[str, Any]]:
    """Let a run come to its end; return its worker and the run."""
    worker = agents.hire()
    run = await agents.until_ended(agents.create(agent, json.dumps(payload), kind="agent", **values))
    return worker, run


async def died(
    agents: AgentFleet,
    name: str,
    payload: dict[str, Any] | None,
    *,
    at: int,
    meanwhile: Callable[[], object] | None = None,
    kind: str = "agent",
) -> dict[str, Any]:
    """Let a worker die behind a commit and another one go on; return the run that has ended."""
    mortal = agents.hire(dies_at=at, commits_last=True)
    run_id = agents.create(name, None if payload is None else json.dumps(payload), kind=kind)
    async with asyncio.timeout(20):
        while not mortal.backend.died.is_set() and agents.record(run_id)["status"] not in TERMINAL:
            agents.sweep()
            await asyncio.sleep(0.001)
    await agents.bury(mortal)
    if meanwhile is not None:
        meanwhile()
    worker = agents.hire()
    run = await agents.until_ended(run_id)
    await agents.bury(worker)
    return run


def result_of(run: dict[str, Any]) -> Any:
    """Return the answer of an agent's run."""
    return json.loads(run["output"])["result"]


def steps_of(agents: AgentFleet, run: dict[str, Any]) -> list[str]:
    """Return the names of a run's steps."""
    return sorted(str(row[0]) for row in agents.read(READ_STEPS, run=run["id"]))


def forked(agents: AgentFleet, run: dict[str, Any], step: str) -> str:
    """Fork a run from a step; return the id of the fork."""
    steps = [step_details(row) for row in agents.read(READ_STEP_DETAILS, run=run["id"])]
    plan = plan_fork(run["id"], steps, from_step=step, max_value_bytes=SETTINGS.max_value_bytes)
    row = forked_row(run, ForkRequest(execution_id=run["id"]), deployment="default", max_value_bytes=1000)
    agents.do(create_fork(NewRun(**row), plan.names, plan.replacements, seq=plan.seq, ring_again=0.0))
    return str(row["id"])


# -- the agents

folding = Agent(
    id="replays-folding",
    provider="openai",
    model="m",
    compaction=CompactionConfig(max_conversation_tokens=900, min_recent_messages=1),
)
TALK = [{"role": ("user", "assistant")[n % 2], "content": f"{n}: {LONG}"} for n in range(5)]


def folds(request: ModelRequest) -> Any:
    return "A summary" if "condense" in (request.system_prompt or "") else "Done"


def blank(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    return GuardrailResult.continue_with(modified_content="")


def fills(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    text = "I look it up" if seen.tool_calls else seen.content
    return GuardrailResult.continue_with(modified_content=text)


@tool(id="replays-look")
async def look(ctx: WorkflowContext) -> str:
    return "found"


def is_short(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    if seen.tool_calls and len(seen.tool_calls) > 1:
        return GuardrailResult.fail("one call at a time")
    return GuardrailResult.continue_with()


def writes(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    if seen.steps:
        return GuardrailResult.continue_with(modified_content="Seen")
    calls = [
        ToolCall(id=name, function=ToolCallFunction(name="replays-look", arguments="{}")) for name in "ab"
    ]
    return GuardrailResult.continue_with(modified_tool_calls=calls)


writing = Agent(id="replays-writing", provider="openai", model="m", tools=[look], guardrails=[writes])


def is_good(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    return GuardrailResult.continue_with() if seen.content == "good" else GuardrailResult.fail("bad")


class Verdict(BaseModel):
    good: bool


picky = Agent(id="replays-picky", provider="openai", model="m", guardrails=[is_good], guardrail_max_retries=1)
strict = Agent(id="replays-strict", provider="openai", model="m", output_schema=Verdict)
overflowing = Agent(id="replays-overflowing", provider="openai", model="m", guardrails=[is_good])
careful = Agent(id="replays-careful", provider="openai", model="m", tools=[look], guardrails=[is_short])
expert = Agent(id="replays-expert", provider="openai", model="m", tools=[look], guardrails=["It is true"])
boss = Agent(
    id="replays-boss", provider="openai", model="m", system_prompt="replays-boss", tools=[expert.as_tool()]
)
desk = Agent(id="replays-desk", provider="openai", model="m", handoffs=["replays-expert"], description="d")
endless = Agent(id="replays-endless", provider="openai", model="m", tools=[look])
blanking = Agent(id="replays-blanking", provider="openai", model="m", guardrails=["It is polite", blank])
filling = Agent(
    id="replays-filling", provider="openai", model="m", tools=[look], guardrails=["It is polite", fills]
)


def judged(request: ModelRequest) -> Any:
    return '{"passed": true, "reason": "fine"}' if "<rule>" in said(request) else "Hello"


def looks(request: ModelRequest) -> Any:
    if "<rule>" in said(request):
        return '{"passed": true, "reason": "fine"}'
    return "It is there" if "found" in said(request) else tool_call("replays-look")


def hurries(request: ModelRequest) -> Any:
    assert not unpaired(request.messages)
    if "found" in said(request):
        assert "not accepted" not in said(request), "what was refused is sent no more"
        return "It is there"
    call = tool_call("replays-look")
    return call if "not accepted" in said(request) else [call, call]


def hands_over(request: ModelRequest) -> Any:
    if any(tool["name"] == "transfer_to_replays-expert" for tool in request.tools):
        return tool_call("transfer_to_replays-expert")
    return looks(request)


def never_ends(request: ModelRequest) -> Any:
    return tool_call("replays-look")


def overflows(request: ModelRequest) -> Any:
    """Says of each call that it is too long, until it is made again behind a summary."""
    if "condense" in (request.system_prompt or ""):
        return "A summary"
    if not str(request.idempotency_key).endswith("compacted"):
        return too_long()
    return "good" if "not accepted" in said(request) else "bad"


def too_long() -> ModelError:
    return ModelError("too long", kind=ModelErrorKind.CONTEXT_OVERFLOW)


def corrects(request: ModelRequest) -> Any:
    return '{"good": true}' if "does not fit" in said(request) or len(request.messages) > 1 else "bad"


def asks_expert(request: ModelRequest) -> Any:
    if "replays-boss" in (request.system_prompt or ""):
        return "Thanks" if "It is there" in said(request) else tool_call("replays-expert", input="Look")
    return looks(request)


PROGRAMS: dict[str, tuple[Callable[[ModelRequest], Any], Any]] = {
    "replays-folding": (folds, TALK),
    "replays-blanking": (judged, "Hi"),
    "replays-filling": (looks, "Hi"),
    "replays-writing": (looks, "Hi"),
    "replays-strict": (corrects, "Hi"),
    "replays-overflowing": (overflows, TALK),
    "replays-boss": (asks_expert, "Hi"),
    "replays-careful": (hurries, "Hi"),
    "replays-desk": (hands_over, "Hi"),
    "replays-endless": (never_ends, "Hi"),
}


@pytest.mark.parametrize("agent", PROGRAMS)
async def test_a_replay_asks_for_the_same_steps_wherever_a_worker_died(
    agents: AgentFleet, agent: str
) -> None:
    says, given = PROGRAMS[agent]
    agents.model = ScriptedModel(says)
    worker, whole = await lived(agents, agent, {"input": given})
    assert whole["status"] == "completed", whole["error"]
    calls, commits = len(agents.model.calls), worker.backend.commits
    await agents.bury(worker)
    for at in range(2, commits, 1 + commits // 10):
        agents.model.calls.clear()
        run = await died(agents, agent, {"input": given}, at=at)
        assert (run["status"], run["error"]) == ("completed", None), f"died at commit {at}"
        assert steps_of(agents, run) == steps_of(agents, whole)
        assert len(agents.model.calls) <= calls + 1


@pytest.mark.parametrize("agent", PROGRAMS)
async def test_a_run_can_be_forked_from_each_of_its_steps(agents: AgentFleet, agent: str) -> None:
    says, given = PROGRAMS[agent]
    agents.model = ScriptedModel(says)
    _, whole = await lived(agents, agent, {"input": given})
    for step in steps_of(agents, whole):
        run = await agents.until_ended(forked(agents, whole, shown(step)))
        assert (run["status"], run["error"]) == ("completed", None), f"forked from {step}"
        assert result_of(run) == result_of(whole), f"forked from {step}"


@pytest.mark.parametrize("steps", [1, 9])
async def test_a_replay_goes_by_the_number_of_turns_that_was_allowed_then(
    agents: AgentFleet, steps: int
) -> None:
    """A worker with another POLOS_MAX_AGENT_STEPS goes on; it decides only what was not decided."""
    agents.model = ScriptedModel(never_ends)

    def is_set_anew() -> None:
        agents.settings = replace(SETTINGS, max_agent_steps=steps)

    before = agents.settings
    for at in (8, 13, 18):
        agents.settings = before
        run = await died(agents, "replays-endless", {"input": "Hi"}, at=at, meanwhile=is_set_anew)
        assert (run["status"], run["error"]) == ("completed", None), f"died at commit {at}"


async def test_a_run_does_not_go_on_where_the_agent_is_unknown_that_it_was_handed_to(
    agents: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.model = ScriptedModel(hands_over)

    def is_unknown() -> None:
        monkeypatch.setattr("polos.agents.handoffs.get_workflow", lambda id: None)

    run = await died(agents, "replays-desk", {"input": "Hi"}, at=9, meanwhile=is_unknown)
    assert (run["status"], "is not defined in this worker" in run["error"]) == ("blocked", True)
    monkeypatch.undo()
    agents.hire()
    agents.do(unblock_run(run["id"]))
    ended = await agents.until_ended(run["id"])
    assert (ended["status"], ended["error"]) == ("completed", None)


async def test_an_agent_that_was_unknown_at_the_handoff_stays_so(
    agents: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.model = ScriptedModel(
        lambda request: "Then not" if "not defined" in said(request) else hands_over(request)
    )
    for at in (6, 7, 9):
        monkeypatch.setattr("polos.agents.handoffs.get_workflow", lambda id: None)
        run = await died(agents, "replays-desk", {"input": "Hi"}, at=at, meanwhile=monkeypatch.undo)
        assert (run["status"], run["error"]) == ("completed", None), f"died at commit {at}"
        assert json.loads(run["output"])["agent_id"] == "replays-desk"


@pytest.mark.parametrize(
    ("agent", "error", "good"),
    [
        ("replays-picky", "Guardrail failed after 1 retries: bad", "good"),
        ("replays-strict", "do not fit its output_schema", '{"good": true}'),
    ],
)
async def test_a_run_whose_answers_were_refused_asks_as_often_again_when_it_is_retried(
    agents: AgentFleet, agent: str, error: str, good: str
) -> None:
    agents.model = ScriptedModel(["bad"] * 4 + [good])
    _, run = await lived(agents, agent, {"input": "Hi"})
    for calls in (2, 4):
        assert (run["status"], error in run["error"], len(agents.model.calls)) == ("failed", True, calls)
        event = ("agent_retry", "{}")
        assert agents.do(retry_ended(run["id"], event=event, topic="t", ring_again=0.0))
        run = await agents.until_ended(run["id"])
    assert (run["status"], run["error"], len(agents.model.calls)) == ("completed", None, 5)


async def test_a_turn_whose_workers_died_is_made_again_when_its_run_is_retried(agents: AgentFleet) -> None:
    agents.model = ScriptedModel(["good"])
    run_id = agents.create("replays-picky", json.dumps({"input": "Hi"}), kind="agent")
    worker = agents.hire(dies_at=4)  # before the turn is claimed
    agents.sweep()
    await until(worker.backend.died.is_set)
    await agents.bury(worker)
    assert len(agents.do(Unit((Part(THREE_DEATHS, {}),), ()))) == 1, "no turn is scheduled"
    agents.hire()
    run = await agents.until_ended(run_id)
    assert (run["status"], "worker_lost: 3" in run["error"]) == ("failed", True)
    assert agents.do(retry_ended(run_id, event=("agent_retry", "{}"), topic="t", ring_again=0.0))
    run = await agents.until_ended(run_id)
    assert (run["status"], run["error"]) == ("completed", None)


@pytest.mark.parametrize("given", [TALK[:3], [{"role": "user", "content": LONG * 2}]])
async def test_a_retry_goes_on_without_a_deleted_session_that_it_had_folded(
    agents: AgentFleet, given: list[dict[str, Any]]
) -> None:
    def answers(request: ModelRequest) -> Any:
        return (
            folds(request) if is_well or "condense" in (request.system_prompt or "") else ModelError("down")
        )

    is_well = True
    agents.model = ScriptedModel(answers)
    worker, _ = await lived(agents, "replays-folding", {"input": TALK[:3]}, session_id="talk")
    await agents.bury(worker)
    is_well = False
    _, run = await lived(agents, "replays-folding", {"input": given}, session_id="talk")
    assert (run["status"], "$turn:compaction:1" in steps_of(agents, run)) == ("failed", True)

    key = SessionKey("default", "talk", "replays-folding")
    assert agents.do(forget(key, "new"))
    assert agents.do(remove_forgotten(key))
    is_well = True
    assert agents.do(retry_ended(run["id"], event=("agent_retry", "{}"), topic="t", ring_again=0.0))
    run = await agents.until_ended(run["id"])
    assert (run["status"], run["error"]) == ("completed", None)


def redacts(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    return GuardrailResult.continue_with(modified_content="Write to [gone]")


redacting = Agent(id="replays-redacting", provider="openai", model="m", guardrails=["It is polite", redacts])


async def test_what_guardrails_took_out_is_nowhere_in_the_journal(agents: AgentFleet) -> None:
    agents.model = ScriptedModel(["Write to ada@example.com", '{"passed": true, "reason": "fine"}'])
    _, run = await lived(agents, "replays-redacting", {"input": "Whom?"})
    assert result_of(run) == "Write to [gone]"
    assert "ada@example.com" not in repr([run, *agents.read(READ_STEP_DETAILS, run=run["id"])])


@workflow(id="replays-asks")
async def asks(ctx: WorkflowContext) -> str:
    await ctx.step.publish_event("told", "replays-topic", {"text": LONG})
    try:
        await ctx.step.suspend("ok", data={"text": LONG}, timeout=0.05)
    except StepExecutionError as error:
        return type(error).__name__
    return "answered"


async def test_what_was_told_and_asked_stands_though_values_must_be_smaller_now(
    agents: AgentFleet,
) -> None:
    agents.model = ScriptedModel([])

    def is_set_anew() -> None:
        agents.settings = replace(SETTINGS, max_value_bytes=500)

    run = await died(agents, "replays-asks", None, at=3, meanwhile=is_set_anew, kind="workflow")
    assert (run["status"], run["output"]) == ("completed", '"StepExecutionError"')
