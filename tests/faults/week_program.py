"""The programs under load: steps, sync functions, nested runs, agents, and what is tried again.

Each side effect has a name of its own in the tree of its run; CHAINS says in which order they happen.
"""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from typing import Any

from ledger import WORKER, Ledger
from pydantic import BaseModel

from polos import (
    Agent,
    GuardrailContext,
    GuardrailResult,
    HookContext,
    HookResult,
    WorkflowContext,
    queue,
    tool,
    workflow,
)

PACE_SECONDS = float(os.environ.get("FAULT_PACE", "0.05"))  # of an average side effect
MODEL_URL = os.environ.get("FAULT_MODEL_URL", "")
CALLER = os.environ.get("FAULT_CALLER") or os.environ.get(WORKER, "nobody")  # in the address, tells who calls
SLEEP_SECONDS = float(os.environ.get("FAULT_SLEEP", "0.3"))
FLAKY_FAILURES = 2
PAUSE_SECONDS = 0.4  # of a timer: beyond WAIT_THRESHOLD_SECONDS, so that the run is parked meanwhile
WAIT_THRESHOLD_SECONDS = 0.2
LIMIT = 3  # of the queue that all runs of "week-waits" share

# Chains of side effects: each begins after the one before it has ended.
CHAINS: dict[str, list[list[str]]] = {
    "week-plain": [["first", "second", "third"]],
    "week-sync": [["read", "write.1", "close"], ["read", "write.2", "close"]],
    "week-nested": [["before", f"{side}.inside", f"{side}.leaf", "after"] for side in ("left", "right")],
    "week-clerk": [["charge.1", "charge.2"], ["stamp.1", "charge.2"]],
    "week-desk": [["greet", f"{name}.1", "charge.2", "close"] for name in ("charge", "stamp")],
    "week-sorter": [["charge.1", "charge.2"], ["stamp.1", "charge.2"]],
    "week-waits": [["before", f"{side}.limited", "after"] for side in ("left", "right")],
    "week-sleeper": [["before", "woke"]],
    "week-blocked": [["before", "nap", "after"]],
    "week-flaky": [["once", "try"]],
    "week-patient": [],
}
# Of the sorter: two of its own; after the handoff one that calls a tool, an answer that is refused, one that
# passes, and the judge's.
TURNS = {"week-clerk": 3, "week-desk": 3, "week-sorter": 6, "week-patient": 1}
MIXED = ("week-plain", "week-sync", "week-nested", "week-clerk", "week-desk", "week-sorter", "week-waits")
AGENTS = {"week-clerk", "week-sorter", "week-patient"}


class Order(BaseModel):
    """What a run is asked to do."""

    number: int
    side: str = ""


class Item(BaseModel):
    """Argument of the tools."""

    item: int


def expected_output(program: str, number: int) -> Any:
    """Return what the run must come to, as JSON data; of an agent, its answer."""
    return {
        "week-plain": [f"{name} of {number}" for name in ("first", "second", "third")],
        "week-sync": ["read", "write.1", "write.2", "close", number],
        "week-nested": ["before", {"side": "left", "sum": number + 2}, {"side": "right", "sum": number + 2}],
        "week-clerk": f"Done for {number}",
        "week-desk": f"Done for {number}",
        "week-sorter": f"DONE FOR {number}",
        "week-waits": [number, "left.limited", "right.limited"],
        "week-sleeper": "woke",
        "week-blocked": ["before", "nap", "after"],
        "week-flaky": "at last",
        "week-patient": f"Done for {number}",
    }[program]


def ledger() -> Ledger:
    return Ledger(os.environ["FAULT_LEDGER"])


def _seconds(root: str, name: str) -> float:
    """Return how long an effect takes: always the same for it, others for others."""
    return PACE_SECONDS * (0.2 + 1.6 * (zlib.crc32(f"{root}{name}".encode()) % 1000) / 1000)


async def effect(root: str, name: str) -> str:
    """Do something to the world, on the loop."""
    ledger().write(root, name, "start")
    await asyncio.sleep(_seconds(root, name))
    ledger().write(root, name, "end")
    return name


def sync_effect(root: str, name: str) -> str:
    """Do something to the world, in a thread."""
    ledger().write(root, name, "start")
    time.sleep(_seconds(root, name))
    ledger().write(root, name, "end")
    return name


@workflow(id="week-plain")
async def plain(ctx: WorkflowContext, order: Order) -> list[str]:
    names = ("first", "second", "third")
    root = ctx.root_execution_id
    return [f"{await ctx.step.run(name, effect, root, name)} of {order.number}" for name in names]


@workflow(id="week-sync")
async def sync(ctx: WorkflowContext, order: Order) -> list[Any]:
    root = ctx.root_execution_id
    read = await ctx.step.run("read", sync_effect, root, "read")
    wrote = await asyncio.gather(
        ctx.step.run("write.1", sync_effect, root, "write.1"),
        ctx.step.run("write.2", effect, root, "write.2"),
    )
    close = await ctx.step.run("close", sync_effect, root, "close")
    return [read, *wrote, close, order.number]


@workflow(id="week-leaf")
async def leaf(ctx: WorkflowContext, order: Order) -> int:
    name = f"{order.side}.leaf"
    await ctx.step.run(name, effect, ctx.root_execution_id, name)
    return order.number + 1


@workflow(id="week-inner")
async def inner(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
    name = f"{order.side}.inside"
    await ctx.step.run(name, effect, ctx.root_execution_id, name)
    grown = await ctx.step.invoke_and_wait("leaf", leaf, order)
    return {"side": order.side, "sum": grown + 1}


@workflow(id="week-nested")
async def nested(ctx: WorkflowContext, order: Order) -> list[Any]:
    root = ctx.root_execution_id
    before = await ctx.step.run("before", effect, root, "before")
    sides = await asyncio.gather(
        *(
            ctx.step.invoke_and_wait(side, inner, Order(number=order.number, side=side))
            for side in ("left", "right")
        )
    )
    await ctx.step.run("after", sync_effect, root, "after")
    return [before, *sides]


@workflow(id="week-limited", queue=queue("week-limited", concurrency_limit=LIMIT))
async def limited(ctx: WorkflowContext, order: Order) -> str:
    name = f"{order.side}.limited"
    return str(await ctx.step.run(name, effect, ctx.root_execution_id, name))


@workflow(id="week-waits")
async def waits(ctx: WorkflowContext, order: Order) -> list[Any]:
    """Waits for an event of its own and for a timer, then for two runs of a queue that all share."""
    root, topic = ctx.root_execution_id, f"week/{ctx.root_execution_id}"
    await ctx.step.run("before", effect, root, "before")
    heard, _, _ = await asyncio.gather(
        ctx.step.wait_for_event("heard", topic, timeout=600, event_type="word", since=0),
        ctx.step.publish_event("said", topic, {"number": order.number}, "word"),
        ctx.step.wait_for("pause", seconds=PAUSE_SECONDS),
    )
    sides = await asyncio.gather(
        *(
            ctx.step.invoke_and_wait(side, limited, Order(number=order.number, side=side))
            for side in ("left", "right")
        )
    )
    await ctx.step.run("after", sync_effect, root, "after")
    return [heard.data["number"], *sides]


@tool(id="charge", description="Charge for an item")
async def charge(ctx: WorkflowContext, item: Item) -> str:
    return await effect(ctx.root_execution_id, f"charge.{item.item}")


@tool(id="stamp", description="Stamp an item")
def stamp(ctx: WorkflowContext, item: Item) -> str:
    return sync_effect(ctx.root_execution_id, f"stamp.{item.item}")


def agent_of(name: str, tools: list[Any], **options: Any) -> Agent:
    return Agent(
        id=name,
        provider="openai",
        model="the-model",
        tools=tools,
        provider_base_url=f"{MODEL_URL}/{CALLER}/v1",
        provider_llm_api="chat_completions",
        **options,
    )


def checked(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    """Have answers made again that nobody has checked; shout the others."""
    text = seen.content or ""
    if text and not text.startswith("Checked: "):
        return GuardrailResult.fail("it is not checked")
    return GuardrailResult.continue_with(modified_content=text.removeprefix("Checked: ").upper())


def watched(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    """Change nothing."""
    return HookResult.continue_with()


clerk = agent_of("week-clerk", [charge, stamp])
patient = agent_of("week-patient", [])
closer = agent_of("week-closer", [charge], guardrails=[checked, "It is an answer."], on_tool_end=watched)
sorter = agent_of("week-sorter", [charge, stamp], handoffs=[closer], on_agent_step_start=watched)


@workflow(id="week-desk")
async def desk(ctx: WorkflowContext, order: Order) -> str:
    root = ctx.root_execution_id
    await ctx.step.run("greet", effect, root, "greet")
    answer = await ctx.step.agent_invoke_and_wait("clerk", clerk.with_input(f"Order {order.number}"))
    await ctx.step.run("close", sync_effect, root, "close")
    return str(answer.result)


@workflow(id="week-sleeper")
async def sleeper(ctx: WorkflowContext, order: Order) -> str:
    root = ctx.root_execution_id
    await ctx.step.run("before", effect, root, "before")
    await ctx.step.wait_for("sleep", seconds=SLEEP_SECONDS)
    return str(await ctx.step.run("woke", effect, root, "woke"))


@tool(id="nap", description="Sleep, as nobody should")
async def nap(ctx: WorkflowContext, item: Item) -> str:
    """Block the event loop."""
    ledger().write(ctx.root_execution_id, "nap", "start")
    time.sleep(SLEEP_SECONDS)  # noqa: ASYNC251 - what users do
    ledger().write(ctx.root_execution_id, "nap", "end")
    return "nap"


@workflow(id="week-blocked")
async def blocked(ctx: WorkflowContext, order: Order) -> list[Any]:
    root = ctx.root_execution_id
    before = await ctx.step.run("before", effect, root, "before")
    napped = await ctx.step.invoke_and_wait("nap", nap, Item(item=1))
    return [before, napped, await ctx.step.run("after", effect, root, "after")]


@workflow(id="week-flaky")
async def flaky(ctx: WorkflowContext, order: Order) -> str:
    """Fails twice, outside of every step: the whole run is tried again, after a pause."""
    root = ctx.root_execution_id
    await ctx.step.run("once", effect, root, "once")
    ledger().write(root, "try", "start")
    ledger().write(root, "try", "end")
    if len([entry for entry in ledger().of(root) if entry.name == "try"]) <= 2 * FLAKY_FAILURES:
        raise RuntimeError("not yet")
    return "at last"
