"""Tools that ask a person before they run, and what each kind of answer comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backends import on_both
from models.servers import ModelServer
from pydantic import BaseModel

from polos import Agent, HookContext, HookResult, Polos, Tool, ToolResult, WorkflowContext, tool
from polos.errors import AnswerError, RunFailedError
from polos.handles import ExecutionHandle

pytestmark = pytest.mark.timeout(120)


class Payment(BaseModel):
    to: str
    amount: int


paid: list[Payment] = []


@tool(id="e2e_pay", approval="always")
async def pay(ctx: WorkflowContext, input: Payment) -> str:
    paid.append(input)
    return f"paid {input.amount} to {input.to}"


payer = Agent(id="e2e-payer", provider="openai", model="gpt-4o", tools=[pay])
ADA = {"to": "ada", "amount": 5}


@pytest.fixture(autouse=True)
def no_payments() -> None:
    paid.clear()


class Asked:
    """A run that has asked."""

    def __init__(self, polos: Polos, handle: ExecutionHandle, key: str, data: dict[str, Any]) -> None:
        self._polos = polos
        self.handle = handle
        self.key = key
        self.data = data

    async def answer(self, data: Any, **options: Any) -> None:
        root = self.handle.root_workflow_id or self.handle.workflow_id
        await self._polos.resume(root, self.handle.id, self.key, data, **options)

    async def record(self) -> dict[str, Any]:
        return await self._polos.wait(self.handle.id, timeout_seconds=15)

    async def tool_result(self) -> dict[str, Any]:
        """Return what the model was told of its call."""
        [found] = (await self.record())["result"]["tool_results"]
        return dict(found)


@asynccontextmanager
async def asking(polos: Polos, agent: Agent = payer, **options: Any) -> AsyncIterator[Asked]:
    """Start an agent, and go on when it asks."""
    handle = await agent.invoke(polos, {"input": "Pay Ada."}, **options)
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_"):
            yield Asked(polos, handle, event.event_type.removeprefix("suspend_"), event.data)
            return
    raise AssertionError("it asked nothing")


def calls_pay(model: ModelServer, answer: str = "Done.", **arguments: Any) -> None:
    model.calls(("e2e_pay", {**ADA, **arguments}))
    model.says(answer)


@on_both
async def test_a_tool_runs_once_a_person_has_approved(polos: Polos, model: ModelServer) -> None:
    calls_pay(model)
    async with asking(polos) as asked:
        form = asked.data["_form"]
        assert asked.key.startswith("approve_e2e_pay_")
        assert (asked.data["_source"], asked.data["_tool"]) == ("tool_approval", "e2e_pay")
        assert form["context"] == {"tool": "e2e_pay", "input": ADA}
        assert [field["key"] for field in form["fields"]] == ["approved", "allow_always", "feedback"]
        assert all(field["name"] == field["key"] for field in form["fields"])
        assert paid == []
        await asked.answer({"approved": True}, answered_by="Grace")
        assert (await asked.tool_result())["result"] == "paid 5 to ada"
        assert paid == [Payment(**ADA)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"approved": False, "feedback": "Too much."},
            "Tool 'e2e_pay' was rejected by the user. Feedback: Too much.",
        ),
        ({"approved": False}, "Tool 'e2e_pay' was rejected by the user."),
        ({}, "Tool 'e2e_pay' was rejected by the user."),
        ({"approved": None, "feedback": ""}, "Tool 'e2e_pay' was rejected by the user."),
        ({"approved": 1}, "Tool 'e2e_pay' was rejected by the user."),
        ({"approved": "perhaps"}, "Tool 'e2e_pay' was rejected by the user."),
        ({"approved": "false"}, "Tool 'e2e_pay' was rejected by the user."),
        ({"approved": [True]}, "Tool 'e2e_pay' was rejected by the user."),
        ("yes", "Tool 'e2e_pay' was rejected by the user."),
        ([True], "Tool 'e2e_pay' was rejected by the user."),
    ],
)
async def test_anything_but_true_rejects(polos: Polos, model: ModelServer, answer: Any, message: str) -> None:
    calls_pay(model)
    async with asking(polos) as asked:
        await asked.answer(answer)
        found = await asked.tool_result()
    assert (found["status"], found["error"], found["result"]) == ("failed", message, f"Error: {message}")
    assert paid == []
    told = model.requests[-1].body["input"][-1]
    assert (told["type"], told["output"]) == ("function_call_output", f"Error: {message}")


@pytest.mark.parametrize("word", ["true", "True", "on", "yes", "1"])
async def test_the_words_of_html_forms_are_read(polos: Polos, model: ModelServer, word: str) -> None:
    calls_pay(model)
    async with asking(polos) as asked:
        await asked.answer({"approved": word})
        assert (await asked.tool_result())["status"] == "completed"


async def test_the_answer_says_who_gave_it_and_when(polos: Polos, model: ModelServer) -> None:
    calls_pay(model)
    async with asking(polos) as asked:
        await asked.answer({"approved": True}, answered_by="Grace")
        await asked.record()
        wait = await polos._transport.find_wait(asked.handle.id, asked.key)  # type: ignore[union-attr]
    assert wait is not None
    assert (wait.answer["approved"], wait.answered_by) == (True, "Grace")
    assert wait.ended_at is not None


async def test_calls_of_one_answer_are_asked_about_one_by_one(polos: Polos, model: ModelServer) -> None:
    model.calls(("e2e_pay", ADA), ("e2e_pay", {"to": "bob", "amount": 7}))
    model.says("Done.")
    handle = await payer.invoke(polos, {"input": "Pay both."})
    asked: dict[str, str] = {}
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_"):
            asked[event.data["_form"]["context"]["input"]["to"]] = event.event_type.removeprefix("suspend_")
        if len(asked) == 2:
            break
    await polos.resume(payer.id, handle.id, asked["bob"], {"approved": True})
    await polos.resume(payer.id, handle.id, asked["ada"], {"approved": False})
    record = await polos.wait(handle.id, timeout_seconds=15)
    assert [found["status"] for found in record["result"]["tool_results"]] == ["failed", "completed"]
    assert paid == [Payment(to="bob", amount=7)]


async def test_a_call_that_is_allowed_for_its_session_is_not_asked_again(
    polos: Polos, model: ModelServer
) -> None:
    calls_pay(model)
    async with asking(polos, session_id="allowing") as asked:
        await asked.answer({"approved": True, "allow_always": "on"})
        await asked.record()

    calls_pay(model, "Again.")
    handle = await payer.invoke(polos, {"input": "Again."}, session_id="allowing")
    assert (await polos.wait(handle.id, timeout_seconds=15))["result"]["result"] == "Again."
    assert len(paid) == 2

    for session, other in (("allowing", {"amount": 6}), ("another", {})):
        calls_pay(model, **other)
        async with asking(polos, session_id=session) as asked:
            await asked.answer({"approved": False, "allow_always": True})
            await asked.record()
    assert len(paid) == 2


async def test_the_allowance_of_one_agent_is_not_anothers(polos: Polos, model: ModelServer) -> None:
    calls_pay(model)
    async with asking(polos, session_id="shared") as asked:
        await asked.answer({"approved": True, "allow_always": True})
        await asked.record()
    other = Agent(id="e2e-other-payer", provider="openai", model="gpt-4o", tools=[pay])
    calls_pay(model)
    async with asking(polos, other, session_id="shared") as asked:
        await asked.answer({"approved": False})
        await asked.record()
    assert len(paid) == 1


async def test_a_function_says_for_which_input_to_ask(polos: Polos, model: ModelServer) -> None:
    seen: list[int] = []

    def is_large(ctx: WorkflowContext, input: Payment) -> bool:
        seen.append(input.amount)
        return input.amount > 100

    careful = Agent(id="e2e-careful", provider="openai", model="gpt-4o", tools=[pay.with_approval(is_large)])
    calls_pay(model, amount=100)
    assert (await careful.run(polos, "Pay.")).tool_results[0].status == "completed"
    calls_pay(model, amount=101)
    async with asking(polos, careful) as asked:
        await asked.answer({"approved": True})
        assert (await asked.tool_result())["result"] == "paid 101 to ada"
    assert seen == [100, 101]  # once per call, however often it was replayed
    assert pay.approval == "always"


async def _raises(ctx: WorkflowContext, input: Payment) -> bool:
    raise LookupError("no limit set")


async def _says_yes(ctx: WorkflowContext, input: Payment) -> Any:
    return "yes"


@pytest.mark.parametrize(
    ("decide", "problem"),
    [
        (_raises, "Tool 'e2e_pay' was not run: its approval function failed (LookupError: no limit set)"),
        (_says_yes, "Tool 'e2e_pay' was not run: its approval function returned 'yes'; it must return True"),
    ],
)
async def test_a_tool_does_not_run_when_its_function_cannot_decide(
    polos: Polos, model: ModelServer, decide: Any, problem: str
) -> None:
    unsure = Agent(id="e2e-unsure", provider="openai", model="gpt-4o", tools=[pay.with_approval(decide)])
    calls_pay(model)
    [found] = (await unsure.run(polos, "Pay.")).tool_results
    assert str(found.error).startswith(problem)
    assert paid == []


async def test_a_question_that_nobody_answers_in_time_rejects(polos: Polos, model: ModelServer) -> None:
    hasty = Agent(
        id="e2e-hasty", provider="openai", model="gpt-4o", tools=[pay.with_approval("always", timeout=0.2)]
    )
    calls_pay(model)
    handle = await hasty.invoke(polos, {"input": "Pay."})
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_"):
            assert datetime.fromisoformat(event.data["_form"]["expires_at"]) < datetime.now(UTC) + timedelta(
                1
            )
            expired = Asked(polos, handle, event.event_type.removeprefix("suspend_"), event.data)
    await expired.answer({"approved": True})  # too late
    found = ToolResult.model_validate(await expired.tool_result())
    assert found.error == "Tool 'e2e_pay' was not run: nobody approved it within 0.2 seconds"
    assert paid == []


async def test_hooks_at_the_start_come_before_the_question(polos: Polos, model: ModelServer) -> None:
    def halve(ctx: WorkflowContext, hook: HookContext) -> HookResult:
        return HookResult.continue_with(modified_payload={"amount": hook.current_payload.amount // 2})

    @tool(id="e2e_pay_half", approval="always", on_start=halve)
    async def pay_half(ctx: WorkflowContext, input: Payment) -> int:
        return input.amount

    agent = Agent(id="e2e-half", provider="openai", model="gpt-4o", tools=[pay_half])
    model.calls(("e2e_pay_half", {"to": "ada", "amount": 8}))
    model.says("Done.")
    async with asking(polos, agent) as asked:
        assert asked.data["_form"]["context"]["input"]["amount"] == 4
        await asked.answer({"approved": True})
        assert (await asked.tool_result())["result"] == 4


async def test_a_tool_that_is_run_by_hand_asks_too(polos: Polos) -> None:
    handle = await pay.invoke(polos, Payment(**ADA))
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_"):
            key = event.event_type.removeprefix("suspend_")
            await polos.resume("e2e_pay", handle.id, key, {"approved": False, "feedback": "No."})
    record = await polos.wait(handle.id, timeout_seconds=15)
    assert (record["status"], record["error"]) == (
        "failed",
        "Tool 'e2e_pay' was rejected by the user. Feedback: No.",
    )
    assert record["retry_count"] == 0


async def test_tools_of_one_name_in_two_agents_never_mix(polos: Polos, model: ModelServer) -> None:
    """Each agent's call gets its own tool, with its own approval, whichever was defined last."""

    def named(answer: str, **options: Any) -> Tool:
        @tool(id="e2e_same_name", **options)
        async def same(ctx: WorkflowContext) -> str:
            return answer

        return same

    guarded = Agent(
        id="e2e-guarded", provider="openai", model="gpt-4o", tools=[named("guarded", approval="always")]
    )
    open_ = Agent(id="e2e-open", provider="openai", model="gpt-4o", tools=[named("open")])
    model.calls(("e2e_same_name", {}))
    model.says("Done.")
    async with asking(polos, guarded) as asked:
        await asked.answer({"approved": True})
        assert (await asked.tool_result())["result"] == "guarded"
    model.calls(("e2e_same_name", {}))
    model.says("Done.")
    assert (await open_.run(polos, "Go.")).tool_results[0].result == "open"


async def test_an_answer_that_does_not_fit_its_form_is_refused_and_may_be_given_again(polos: Polos) -> None:
    @tool(id="e2e_asks")
    async def asks(ctx: WorkflowContext) -> Any:
        fields = [
            {"key": "count", "type": "number", "label": "How many", "required": True},
            {"name": "size", "type": "select", "options": ["S", "M"]},
        ]
        return (await ctx.step.suspend("which", {"_form": {"fields": fields}}))["data"]

    handle = await asks.invoke(polos)
    async for event in polos.follow(handle.id):
        if event.event_type == "suspend_which":
            for answer, problem in (
                ({}, r"lacks a field 'count' \(How many\), which is required"),
                ({"count": ""}, "lacks a field 'count'"),
                ({"count": "many"}, "'count' .* takes a number, not 'many'"),
                ({"count": True}, "takes a number, not True"),
                ({"count": 1, "size": "L"}, r"'size' that takes one of \['S', 'M'\], not 'L'"),
            ):
                with pytest.raises(AnswerError, match=problem):
                    await polos.resume("e2e_asks", handle.id, "which", answer)
            await polos.resume("e2e_asks", handle.id, "which", {"count": "3", "size": "M", "more": 1})
    record = await polos.wait(handle.id, timeout_seconds=15)
    assert record["result"] == {"count": 3, "size": "M", "more": 1}


async def test_a_rejected_call_by_hand_raises_in_the_caller(polos: Polos) -> None:
    hasty = pay.with_approval("always", timeout=0.1)
    agent = Agent(id="e2e-hand", provider="openai", model="gpt-4o", tools=[hasty])
    assert agent.find_tool("e2e_pay") is hasty
    with pytest.raises(RunFailedError, match="nobody approved it"):
        await Tool("e2e_brief", func=lambda ctx: 1, approval="always", approval_timeout=0.1).run(polos)
