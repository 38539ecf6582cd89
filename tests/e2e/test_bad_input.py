"""Input that cannot be right: a clear error at the earliest moment, and no run that disappears."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from models.servers import ModelServer
from pydantic import BaseModel

from polos import (
    Agent,
    Polos,
    PolosClient,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    WorkflowTimeoutError,
    tool,
    workflow,
)
from polos.errors import ConfigurationError, RunFailedError, SerializationError, ValueTooLargeError

pytestmark = pytest.mark.timeout(120)
TOO_LARGE = "x" * (1 << 20)  # with its quotes above POLOS_MAX_VALUE_BYTES


class Text(BaseModel):
    text: str


class Counts(WorkflowState):
    seen: int = 0


@workflow(id="e2e-echo")
async def echo(ctx: WorkflowContext, payload: Any) -> Any:
    return payload


@workflow(id="e2e-wants-text")
async def wants_text(ctx: WorkflowContext, payload: Text) -> str:
    return payload.text


# -- payloads


@pytest.mark.parametrize("bad", [object(), {"a": {1j}}, float("nan"), {("a", "b"): 1}], ids=range(4))
async def test_a_payload_that_is_not_json_is_refused_at_once(polos: Polos, bad: object) -> None:
    with pytest.raises(SerializationError, match="payload of workflow 'e2e-echo'"):
        await echo.invoke(polos, bad)
    with pytest.raises(TypeError):
        await polos.invoke("e2e-echo", bad)


async def test_a_payload_that_is_too_large_is_refused_at_once(polos: Polos) -> None:
    with pytest.raises(
        ValueTooLargeError, match=r"payload of 'e2e-echo' is 1048578 bytes.*POLOS_MAX_VALUE_BYTES"
    ):
        await echo.invoke(polos, TOO_LARGE)


async def test_a_payload_that_is_missing_is_refused_at_once(polos: Polos) -> None:
    with pytest.raises(ValueError, match="workflow 'e2e-wants-text' needs a payload: Text"):
        await wants_text.run(polos)


async def test_a_model_of_another_class_is_refused_at_once(polos: Polos) -> None:
    with pytest.raises(ValueError, match="is not Text: text: Field required"):
        await wants_text.invoke(polos, Counts())


async def test_a_payload_for_a_workflow_that_takes_none_is_dropped(polos: Polos) -> None:
    @workflow(id="e2e-takes-none")
    async def takes_none(ctx: WorkflowContext) -> str:
        return "done"

    handle = await takes_none.invoke(polos, {"a": 1})
    assert (await polos.wait(handle.id))["payload"] is None


async def test_an_initial_state_that_does_not_fit_is_refused_at_once(polos: Polos) -> None:
    @workflow(id="e2e-counted", state_schema=Counts)
    async def counted(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match="is not Counts: seen"):
        await counted.invoke(polos, initial_state={"seen": "many"})
    with pytest.raises(ValueError, match="1048576 are allowed"):
        await counted.invoke(polos, initial_state={"seen": 1, "note": TOO_LARGE})


@pytest.mark.parametrize("bad", [None, 3, "", [], ["text"], {"input": []}])
async def test_an_agent_refuses_an_input_it_cannot_take(polos: Polos, bad: Any) -> None:
    agent = Agent(id="e2e-bad-input", provider="openai", model="gpt-4o")
    with pytest.raises((ValueError, TypeError), match="e2e-bad-input"):
        await agent.invoke(polos, bad)


async def test_agent_run_refuses_an_input_that_is_neither_text_nor_messages(polos: Polos) -> None:
    agent = Agent(id="e2e-bad-input", provider="openai", model="gpt-4o")
    with pytest.raises(ValueError, match="must be a text or a non-empty list of message dicts, not 3"):
        await agent.run(polos, 3)
    with pytest.raises(TypeError, match="is not a client"):
        await agent.run("not a client", "hi")


@on_both
async def test_a_bad_payload_started_by_id_ends_failed_with_the_reason(polos: Polos) -> None:
    handle = await polos.invoke("e2e-wants-text", {"words": 1})
    record = await polos.wait(handle.id, timeout_seconds=5)
    assert (record["status"], record["retry_count"]) == ("failed", 0)
    assert "is not Text: text: Field required" in record["error"]


async def test_a_bad_agent_payload_started_by_id_ends_failed_with_the_reason(polos: Polos) -> None:
    Agent(id="e2e-agent-by-id", provider="openai", model="gpt-4o")
    for payload, reason in (
        ({"text": "hi"}, "no 'input'"),
        ("hi", "takes a payload such as"),
        (None, "takes a payload"),
    ):
        handle = await polos.invoke("e2e-agent-by-id", payload)
        record = await polos.wait(handle.id, timeout_seconds=5)
        assert (record["status"], record["retry_count"]) == ("failed", 0)
        assert reason in record["error"]


# -- results


@on_both
async def test_a_result_that_is_too_large_fails_the_run_and_says_so(polos: Polos) -> None:
    @workflow(id="e2e-large-result")
    async def large(ctx: WorkflowContext) -> str:
        return TOO_LARGE

    handle = await large.invoke(polos)
    record = await polos.wait(handle.id, timeout_seconds=5)
    assert (record["status"], record["retry_count"]) == ("failed", 0)
    assert "result of workflow 'e2e-large-result' is 1048578 bytes" in record["error"]


async def test_a_step_result_that_is_too_large_fails_the_step_once(polos: Polos) -> None:
    calls: list[int] = []

    @workflow(id="e2e-large-step")
    async def large(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("fetch", lambda: calls.append(1) or TOO_LARGE)
        except StepExecutionError as error:
            return error.reason
        return "?"

    assert "result of step 'fetch' is 1048578 bytes" in await large.run(polos)
    assert calls == [1]


async def test_a_payload_for_a_child_that_is_too_large_fails_the_step(polos: Polos) -> None:
    @workflow(id="e2e-large-child")
    async def large(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("child", echo, TOO_LARGE)

    handle = await large.invoke(polos)
    record = await polos.wait(handle.id, timeout_seconds=5)
    assert (record["status"], record["retry_count"]) == ("failed", 0)
    assert "payload of step 'child' is 1048578 bytes" in record["error"]


async def test_a_tool_result_that_is_too_large_goes_back_to_the_model_as_an_error(
    polos: Polos, model: ModelServer
) -> None:
    @tool(id="e2e_large_tool")
    async def large(ctx: WorkflowContext) -> str:
        return TOO_LARGE

    agent = Agent(id="e2e-large-tool", provider="openai", model="gpt-4o", tools=[large])
    model.calls(("e2e_large_tool", {}))
    model.says("It is too much.")
    result = await agent.run(polos, "Fetch.")
    assert "result of tool 'e2e_large_tool' is 1048578 bytes" in str(result.tool_results[0].error)
    assert result.result == "It is too much."


async def test_an_agent_whose_results_are_too_large_together_fails_and_says_so(
    polos: Polos, model: ModelServer
) -> None:
    @tool(id="e2e_half")
    async def half(ctx: WorkflowContext) -> str:
        return TOO_LARGE[: 1 << 19]

    agent = Agent(id="e2e-large-agent", provider="openai", model="gpt-4o", tools=[half])
    model.calls(("e2e_half", {}), ("e2e_half", {}))
    model.says("Done.")
    handle = await agent.invoke(polos, {"input": "Fetch."})
    record = await polos.wait(handle.id, timeout_seconds=10)
    assert record["status"] == "failed"
    assert "result of agent 'e2e-large-agent' is" in record["error"]


async def test_an_error_text_of_any_size_and_content_is_kept_readable(polos: Polos) -> None:
    @workflow(id="e2e-odd-error")
    async def odd(ctx: WorkflowContext) -> None:
        raise StepExecutionError("nul \x00 half \ud800 " + "long " * 10_000)

    handle = await odd.invoke(polos)
    error = (await polos.wait(handle.id, timeout_seconds=5))["error"]
    assert error.startswith("nul \\x00 half \\ud800 long long")
    assert error.endswith("… (cut)")


async def test_an_error_without_a_text_is_named_by_its_class(polos: Polos) -> None:
    @workflow(id="e2e-silent-error")
    async def silent(ctx: WorkflowContext) -> None:
        def fails() -> None:
            raise KeyError

        await ctx.step.run("fails", fails, max_retries=0)

    with pytest.raises(RunFailedError, match="KeyError"):
        await silent.run(polos)


# -- agents and settings


def test_an_unknown_provider_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(ValueError, match=r"'nobody'.*openai"):
        Agent(id="e2e-nobody", provider="nobody", model="m")


def test_what_is_not_a_tool_is_refused_when_the_agent_is_made() -> None:
    def plain() -> None: ...

    with pytest.raises(TypeError, match=r"plain.* is not a tool; decorate the function with @tool"):
        Agent(id="e2e-plain", provider="openai", model="m", tools=[plain])  # type: ignore[list-item]


def test_two_tools_of_one_name_are_refused_when_the_agent_is_made() -> None:
    @tool(id="e2e_same")
    async def same(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match=r"several tools named \['e2e_same'\]"):
        Agent(id="e2e-two-same", provider="openai", model="m", tools=[same, same])


@pytest.mark.parametrize("bad", ["", "a\x00b", "x" * 256, 7])
def test_an_id_that_cannot_be_stored_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        workflow(id=bad)(lambda ctx: None)


async def test_a_provider_without_a_key_fails_the_run_and_names_the_variable(
    polos: Polos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROQ_API_KEY")
    agent = Agent(id="e2e-no-key", provider="groq", model="m")
    with pytest.raises(RunFailedError, match="GROQ_API_KEY"):
        await agent.run(polos, "hi")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POLOS_EMBEDDED_WORKER", "maybe"),
        ("POLOS_AGENT_MAX_STEPS", "many"),
        ("POLOS_MAX_VALUE_BYTES", "0"),
        ("POLOS_BEAT_SECONDS", "-1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable}='{value}' cannot be used"):
        PolosClient()


def test_a_program_with_a_worker_refuses_the_url_of_a_server_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="POLOS_DATABASE_URL and POLOS_BROKER_URL"):
        Polos(api_url="https://api.example.com")


# -- what nobody knows


async def test_a_run_of_what_nobody_knows_waits_and_says_so(
    polos: Polos, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await polos.invoke("e2e-nobody-knows", {"n": 1})
    with pytest.raises(WorkflowTimeoutError):
        await polos.wait(handle.id, timeout_seconds=1.8)

    assert f"run {handle.id} waits" in caplog.text
    assert (await polos.get_execution(handle.id))["status"] == "queued"

    @workflow(id="e2e-nobody-knows")
    async def known_now(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
        return int(payload["n"])

    again = await known_now.run(polos, {"n": 2})  # offers it
    record = await polos.wait(handle.id, timeout_seconds=10)
    assert (again, record["result"]) == (2, 1)


async def test_an_event_loop_that_is_blocked_for_a_moment_loses_nothing(polos: Polos) -> None:
    import time

    @workflow(id="e2e-blocks-loop")
    async def blocks(ctx: WorkflowContext) -> str:
        time.sleep(0.5)  # noqa: ASYNC251 - what users do
        return "done"

    assert await asyncio.gather(*(blocks.run(polos) for _ in range(2))) == ["done", "done"]
