"""`ctx.step.run` and the durable values, on the first pass; test_replays.py has what replays give back."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from backends import on_both
from gates import Gate
from pydantic import BaseModel

from polos import Polos, StepExecutionError, WorkflowContext, workflow
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)
QUICK = {"base_delay": 0.01, "max_delay": 0.05}


class Item(BaseModel):
    name: str


async def test_a_step_calls_sync_and_async_functions_with_their_arguments(polos: Polos) -> None:
    def joined(*words: str, end: str) -> str:
        return " ".join(words) + end

    async def later(word: str) -> str:
        await asyncio.sleep(0)
        return word

    class Callable:
        async def __call__(self, word: str) -> str:
            return word * 2

    @workflow(id="e2e-calls")
    async def calls(ctx: WorkflowContext) -> list[str]:
        return [
            await ctx.step.run("sync", joined, "a", "b", end="!"),
            await ctx.step.run("async", later, "c"),
            await ctx.step.run("lambda", lambda: later("d")),
            await ctx.step.run("partial", functools.partial(later, "e")),
            await ctx.step.run("object", Callable(), "f"),
        ]

    assert await calls.run(polos) == ["a b!", "c", "d", "e", "ff"]


async def test_a_sync_step_does_not_hold_up_other_runs(polos: Polos) -> None:
    gate = Gate()

    @workflow(id="e2e-blocks")
    async def blocks(ctx: WorkflowContext) -> str:
        await ctx.step.run("block", gate.passed_in_thread)
        return "unblocked"

    @workflow(id="e2e-brief")
    async def brief(ctx: WorkflowContext) -> str:
        return "done"

    blocked = asyncio.create_task(blocks.run(polos))
    await gate.reached()
    assert await brief.run(polos) == "done"

    gate.open()
    assert await blocked == "unblocked"


@pytest.mark.parametrize("value", [False, 0, 0.0, "", [], {}, None])
async def test_a_falsy_result_is_a_result(polos: Polos, value: object) -> None:
    @workflow(id="e2e-falsy")
    async def falsy(ctx: WorkflowContext, payload: Any = None) -> Any:
        return {"kept": await ctx.step.run("value", lambda: value)}

    kept = (await falsy.run(polos))["kept"]
    assert kept == value
    assert type(kept) is type(value)


async def test_a_step_gives_models_back_and_plain_data_as_json_knows_it(polos: Polos) -> None:
    @workflow(id="e2e-kinds")
    async def kinds(ctx: WorkflowContext) -> list[str]:
        one = await ctx.step.run("one", lambda: Item(name="a"))
        many = await ctx.step.run("many", lambda: [Item(name="a"), Item(name="b")])
        nested = await ctx.step.run("nested", lambda: {"item": Item(name="a"), "pair": (1, 2)})
        at = await ctx.step.run("at", lambda: datetime(2026, 1, 2, tzinfo=UTC))
        return [repr(one), repr(many), repr(nested), repr(at)]

    assert await kinds.run(polos) == [
        "Item(name='a')",
        "[Item(name='a'), Item(name='b')]",
        "{'item': {'name': 'a'}, 'pair': [1, 2]}",
        "'2026-01-02T00:00:00Z'",
    ]


LONG = hashlib.shake_256().hexdigest(3000)
KEYS = ["a/b", "what?", "#", "100%", "$turn:1", "$", "é-ß-漢-🙂", " ", "a\nb", "a\x00b", "\ud800", LONG]


@on_both
@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
async def test_any_string_is_a_key(polos: Polos, key: str) -> None:
    @workflow(id="e2e-keys")
    async def keys(ctx: WorkflowContext) -> int:
        return await ctx.step.run(key, lambda: 7)

    assert await keys.run(polos) == 7


@pytest.mark.parametrize("key", ["", None, 3])
async def test_a_key_must_be_a_string_with_something_in_it(polos: Polos, key: Any) -> None:
    @workflow(id="e2e-no-key")
    async def no_key(ctx: WorkflowContext) -> int:
        return await ctx.step.run(key, lambda: 7)

    with pytest.raises(RunFailedError, match="step key must be a non-empty string"):
        await no_key.run(polos)


async def test_a_key_used_twice_fails_and_names_the_key(polos: Polos) -> None:
    @workflow(id="e2e-twice")
    async def twice(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", lambda: 1)
        await ctx.step.uuid("charge")

    with pytest.raises(RunFailedError, match="'charge' was used twice"):
        await twice.run(polos)


async def test_a_key_with_a_dollar_is_named_as_it_was_given(polos: Polos) -> None:
    @workflow(id="e2e-twice-dollar")
    async def twice(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("$x")
        await ctx.step.uuid("$x")

    with pytest.raises(RunFailedError, match=r"Step key '\$x' was used twice"):
        await twice.run(polos)


async def test_a_step_that_is_not_callable_fails_and_names_the_step(polos: Polos) -> None:
    @workflow(id="e2e-not-callable")
    async def not_callable(ctx: WorkflowContext) -> None:
        await ctx.step.run("seven", 7)  # type: ignore[arg-type]

    with pytest.raises(RunFailedError, match=r"'seven'.* is not callable"):
        await not_callable.run(polos)


# -- failures and retries


async def test_a_step_is_tried_again_until_it_succeeds(polos: Polos) -> None:
    calls: list[float] = []

    def flaky() -> str:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ConnectionError("not yet")
        return "there"

    @workflow(id="e2e-flaky")
    async def runs_flaky(ctx: WorkflowContext) -> str:
        return await ctx.step.run("flaky", flaky, base_delay=0.1, max_delay=0.2)

    assert await runs_flaky.run(polos) == "there"
    assert len(calls) == 3
    first, second = calls[1] - calls[0], calls[2] - calls[1]
    assert first >= 0.08  # 20 % jitter
    assert second >= 0.16  # doubled


async def test_a_step_out_of_retries_fails_at_once_with_the_cause(polos: Polos) -> None:
    calls: list[int] = []
    seen: list[BaseException] = []

    async def fails() -> None:
        calls.append(1)
        raise ValueError("no stock")

    @workflow(id="e2e-fails")
    async def run_fails(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("reserve", fails, max_retries=1, base_delay=0.01, max_delay=60)
        except StepExecutionError as error:
            seen.append(error)
            return error.reason
        return "?"

    assert await run_fails.run(polos) == "Step execution failed after 1 retries: no stock"
    assert len(calls) == 2
    assert isinstance(seen[0].__cause__, ValueError)


async def test_a_failed_step_that_nobody_catches_fails_the_run_without_another_attempt(polos: Polos) -> None:
    attempts: list[int] = []

    def fails() -> None:
        raise ValueError("no stock")

    @workflow(id="e2e-uncaught")
    async def uncaught(ctx: WorkflowContext) -> None:
        attempts.append(ctx.retry_count)
        await ctx.step.run("reserve", fails, max_retries=0)

    handle = await uncaught.invoke(polos)
    record = await polos.wait(handle.id)

    assert record["status"] == "failed"
    assert record["error"] == "Step execution failed after 0 retries: no stock"
    assert attempts == [0]


async def test_an_inner_step_that_failed_for_good_is_not_retried_by_the_outer_one(polos: Polos) -> None:
    outer: list[int] = []

    @workflow(id="e2e-inner")
    async def nested(ctx: WorkflowContext) -> str:
        def fails() -> None:
            raise ValueError("inner")

        async def body() -> str:
            outer.append(1)
            return await ctx.step.run("inner", fails, max_retries=0)

        return await ctx.step.run("outer", body, **QUICK)

    with pytest.raises(RunFailedError, match="inner"):
        await nested.run(polos)
    assert outer == [1]


async def test_a_result_that_is_not_json_fails_the_step_once_and_names_its_type(polos: Polos) -> None:
    calls: list[int] = []

    def opens() -> object:
        calls.append(1)
        return {"connection": object()}

    @workflow(id="e2e-not-json")
    async def not_json(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("open", opens, **QUICK)
        except StepExecutionError as error:
            return error.reason
        return "?"

    reason = await not_json.run(polos)
    assert "'open'" in reason
    assert "value of type object at ['connection']" in reason
    assert calls == [1]


# -- values


async def test_uuid_now_and_random_are_what_they_say(polos: Polos) -> None:
    @workflow(id="e2e-values")
    async def values(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step.uuid("u"), await ctx.step.now("n"), await ctx.step.random("r")]

    before = int(time.time() * 1000)
    text, now, number = await values.run(polos)

    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).version == 4
    assert before <= now <= time.time() * 1000
    assert 0 <= number < 1


async def test_steps_gathered_run_at_the_same_time(polos: Polos) -> None:
    meeting = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        await asyncio.wait_for(meeting.wait(), 5)
        return name

    @workflow(id="e2e-gather")
    async def gathers(ctx: WorkflowContext) -> list[str]:
        return list(await asyncio.gather(*(ctx.step.run(name, meet, name) for name in "abc")))

    assert await gathers.run(polos) == ["a", "b", "c"]


async def test_one_of_several_steps_may_fail_and_the_others_count(polos: Polos) -> None:
    def fails() -> None:
        raise ValueError("b failed")

    @workflow(id="e2e-gather-fails")
    async def gathers(ctx: WorkflowContext) -> list[str]:
        found = await asyncio.gather(
            ctx.step.run("a", lambda: "a"),
            ctx.step.run("b", fails, max_retries=0),
            return_exceptions=True,
        )
        return [one if isinstance(one, str) else type(one).__name__ for one in found]

    assert await gathers.run(polos) == ["a", "StepExecutionError"]


async def test_steps_in_a_task_group_fail_the_run_with_their_reason(polos: Polos) -> None:
    def fails() -> None:
        raise ValueError("no stock")

    @workflow(id="e2e-task-group")
    async def grouped(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.run("a", fails, max_retries=0))

    handle = await grouped.invoke(polos)
    record = await polos.wait(handle.id)
    assert record["status"] == "failed"
    assert "no stock" in record["error"]
    assert record["retry_count"] == 0
