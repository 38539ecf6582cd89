"""The one workflow that executes any program; whatever it does to the world goes to the ledger."""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path as File
from typing import Any

from ledger import WORKER, Ledger
from pydantic import BaseModel

from fuzz.programs import (
    FOREVER,
    OVERDUE_SECONDS,
    UNHEARD_SECONDS,
    Ask,
    Batch,
    Cancelled,
    Child,
    Draw,
    Fail,
    Hear,
    Job,
    Limited,
    Node,
    Nodes,
    Once,
    Overdue,
    Parallel,
    Patch,
    Path,
    Progress,
    Raise,
    Reply,
    Script,
    Spawn,
    Step,
    Talk,
    Timer,
    Tool,
    below,
)
from polos import Agent, BatchWorkflowInput, StepExecutionError, WorkflowContext, queue, tool, workflow

PACE_SECONDS = float(os.environ.get("FAULT_PACE", "0.03"))  # of an average side effect
MODEL_URL = os.environ.get("FAULT_MODEL_URL", "")
BLOCK_SECONDS = 12.0  # of a loop that is blocked: longer than the silence limit
BLOCKS = "blocks"  # stands in the ledger in place of a run, where a loop is blocked
LANES, LIMIT = 8, 2  # of the queue of limited children: lanes, and how many at once in each


def ledger() -> Ledger:
    return Ledger(os.environ["FAULT_LEDGER"])


def lane_of(root: str) -> str:
    """Return in which lane of the limited queue the children of a run are."""
    return f"lane-{zlib.crc32(root.encode()) % LANES}"


# -- side effects


def _seconds(root: str, name: str) -> float:
    """Return how long an effect takes: always the same for it, others for others."""
    return PACE_SECONDS * (0.2 + 1.6 * (zlib.crc32(f"{root}{name}".encode()) % 1000) / 1000)


def _fails_again(root: str, name: str, fails: int) -> bool:
    """Fail if it has not failed so often yet; written down first, so that it is counted once."""
    raised = sum(entry.name == name and entry.phase == "raise" for entry in ledger().of(root))
    if raised >= fails:
        return False
    ledger().write(root, name, "raise")
    return True


def _block_if_chosen() -> None:
    """Block the event loop if somebody has asked for that; the first one who sees it does it."""
    wish = File(os.environ["FAULT_LEDGER"]) / "block"
    try:
        wish.rename(wish.with_name(f"blocked-{os.getpid()}-{time.time_ns()}"))
    except FileNotFoundError:
        return
    ledger().write(BLOCKS, "", "start")
    time.sleep(BLOCK_SECONDS)


async def effect(root: str, name: str, fails: int = 0, value: Any = None) -> Any:
    """Do something to the world, on the loop."""
    ledger().write(root, name, "start")
    _block_if_chosen()
    await asyncio.sleep(_seconds(root, name))
    if fails and _fails_again(root, name, fails):
        raise RuntimeError(f"{name} fails")
    ledger().write(root, name, "end")
    return name if value is None else value


def sync_effect(root: str, name: str, fails: int = 0) -> str:
    """Do something to the world, in a thread."""
    ledger().write(root, name, "start")
    time.sleep(_seconds(root, name))
    if fails and _fails_again(root, name, fails):
        raise RuntimeError(f"{name} fails")
    ledger().write(root, name, "end")
    return name


async def endless(root: str, name: str) -> None:
    """Begin something that never ends."""
    ledger().write(root, name, "start")
    await asyncio.Event().wait()


# -- what programs are made of


class Where(BaseModel):
    """Argument of tools: the path of their side effect."""

    path: Path


@tool(id="fuzz-act", description="Do something to the world")
async def act(ctx: WorkflowContext, where: Where) -> str:
    return str(await effect(ctx.root_execution_id, where.path))


@tool(id="fuzz-sync-act", description="Do something to the world, in a thread")
def sync_act(ctx: WorkflowContext, where: Where) -> str:
    return sync_effect(ctx.root_execution_id, where.path)


talker = Agent(
    id="fuzz-talker",
    provider="openai",
    model="the-model",
    tools=[act, sync_act],
    provider_base_url=f"{MODEL_URL}/{os.environ.get(WORKER, 'nobody')}/v1",  # tells who calls
    provider_llm_api="chat_completions",
)


@workflow(id="fuzz-limited", queue=queue("fuzz-limited", concurrency_limit=LIMIT))
async def limited(ctx: WorkflowContext, where: Where) -> list[str]:
    root, names = ctx.root_execution_id, limited_effects(where.path)
    return [await ctx.step.run(name, effect, root, name) for name in names]


def limited_effects(path: Path) -> list[str]:
    return [below(path, place) for place in range(2)]


@workflow(id="fuzz-waits")
async def waits(ctx: WorkflowContext, where: Where) -> None:
    root = ctx.root_execution_id
    await ctx.step.run(where.path, effect, root, where.path)
    await ctx.step.suspend(where.path + "?", {})


@workflow(id="fuzz-endless")
async def runs_on(ctx: WorkflowContext, where: Where) -> None:
    await ctx.step.run(where.path, endless, ctx.root_execution_id, where.path)


@workflow(id="fuzz")
async def run_program(ctx: WorkflowContext, job: Job) -> list[Any]:
    return await Interpreter(ctx).whole(job.nodes, job.path)


@workflow(id="fuzz-spawned")
async def run_spawned(ctx: WorkflowContext, job: Job) -> None:
    """Execute a part and tell whoever started it."""
    try:
        values = await Interpreter(ctx).whole(job.nodes, job.path)
    except StepExecutionError:
        values = ["failed"]
    await ctx.step.publish_event(
        f"{job.path} done", _topic(ctx.root_execution_id, job.path), {"values": values}
    )


def _topic(root: str, path: Path) -> str:
    return f"fuzz/{root}/{path}"


class Interpreter:
    """Executes nodes in a run; the value of each says what became of it, always the same whatever dies."""

    def __init__(self, ctx: WorkflowContext) -> None:
        self._steps = ctx.step
        self._root = ctx.root_execution_id
        self._root_name = ctx.root_workflow_id
        self._spawned: list[Path] = []

    async def whole(self, nodes: Nodes, path: Path) -> list[Any]:
        """Execute all of a run, and wait for what it has spawned."""
        values = await self.series(nodes, path)
        joined = [await self._joined(spawned) for spawned in sorted(self._spawned)]
        return [*values, *joined] if joined else values

    async def series(self, nodes: Nodes, path: Path) -> list[Any]:
        return [await self.one(node, below(path, place)) for place, node in enumerate(nodes)]

    async def one(self, node: Node, path: Path) -> Any:
        """Execute a node."""
        doing: Callable[[Any, Path], Any] = getattr(self, f"_{type(node).__name__.lower()}")
        return await doing(node, path)

    # -- steps

    async def _step(self, node: Step, path: Path) -> str:
        fails = min(node.fails, FOREVER)
        doing = sync_effect if node.sync else effect
        policy = {"max_retries": node.retries, "base_delay": node.delay}
        call = self._steps.run(path, doing, self._root, path, fails, **policy)
        return str(await _or(call, "failed"))

    async def _once(self, node: Once, path: Path) -> str:
        doing = sync_effect if node.sync else effect
        return str(
            await _or(self._steps.run(path, doing, self._root, path, at_most_once=True), "interrupted")
        )

    async def _timer(self, node: Timer, path: Path) -> str:
        await self._steps.wait_for(path, seconds=node.seconds)
        return "waited"

    async def _draw(self, node: Draw, path: Path) -> bool:
        drawn = await getattr(self._steps, node.what)(path + "=")
        return bool(await self._steps.run(path, effect, self._root, path, 0, drawn) == drawn)

    async def _patch(self, node: Patch, path: Path) -> bool:
        return await self._steps.patched(path)

    async def _progress(self, node: Progress, path: Path) -> str:
        await self._steps.publish_workflow_event(path, {"path": path}, "progress")
        return "told"

    # -- waits

    async def _ask(self, node: Ask, path: Path) -> str:
        never = node.answered == "never"
        asking = self._steps.suspend(path, {"path": path}, timeout=UNHEARD_SECONDS if never else None)
        answer = await _or(asking, {"data": {"answer": "none"}})
        return str(answer["data"]["answer"])

    async def _reply(self, node: Reply, path: Path) -> str:
        answer, _ = await asyncio.gather(
            self._steps.suspend(path, {"path": path}),
            self._steps.resume(path + "!", path, self._root, self._root_name, {"answer": "beside"}),
        )
        return str(answer["data"]["answer"])

    async def _hear(self, node: Hear, path: Path) -> str:
        topic = _topic(self._root, path)
        publishing = partial(self._steps.publish_event, path + "!", topic, {"word": path}, "word")
        if node.published == "never":
            hearing = self._steps.wait_for_event(path, topic, timeout=UNHEARD_SECONDS)
            return str(await _or(hearing, "nothing"))
        if node.published == "before":
            await publishing()
        hearing = self._steps.wait_for_event(path, topic, event_type="word", since=0)
        if node.published == "beside":
            event, _ = await asyncio.gather(hearing, publishing())
        else:
            event = await hearing
        return str(event.data["word"])

    # -- ends

    async def _raise(self, node: Raise, path: Path) -> str:
        if _fails_again(self._root, path, node.times):
            raise RuntimeError(f"{path} raises")
        return "at last"

    async def _fail(self, node: Fail, path: Path) -> None:
        raise StepExecutionError(f"{path} fails")

    # -- children

    async def _tool(self, node: Tool, path: Path) -> str:
        called = sync_act if node.sync else act
        return str(await self._steps.invoke_and_wait(path, called, Where(path=path)))

    async def _talk(self, node: Talk, path: Path) -> str:
        script = Script(path=path, rounds=node.rounds, refused=node.refused).model_dump_json()
        answer = await self._steps.agent_invoke_and_wait(
            path, talker.with_input(script, streaming=node.streamed)
        )
        return str(answer.result)

    async def _child(self, node: Child, path: Path) -> Any:
        return await _or(
            self._steps.invoke_and_wait(path, run_program, Job(path=path, nodes=node.nodes)), "failed"
        )

    async def _spawn(self, node: Spawn, path: Path) -> str:
        await self._steps.invoke(path, run_spawned, Job(path=path, nodes=node.nodes))
        self._spawned.append(path)
        return "spawned"

    async def _joined(self, path: Path) -> Any:
        event = await self._steps.wait_for_event(f"{path} joined", _topic(self._root, path), since=0)
        return event.data["values"]

    async def _batch(self, node: Batch, path: Path) -> list[Any]:
        jobs = [
            Job(path=below(path, place), nodes=nodes).model_dump()
            for place, nodes in enumerate(node.children)
        ]
        wanted = [BatchWorkflowInput(id=run_program.id, payload=job) for job in jobs]
        results = await self._steps.batch_invoke_and_wait(path, wanted)
        return [result.result if result.success else "failed" for result in results]

    async def _parallel(self, node: Parallel, path: Path) -> list[Any]:
        branches = enumerate(node.branches)
        return list(
            await asyncio.gather(*(self.series(branch, below(path, place)) for place, branch in branches))
        )

    async def _limited(self, node: Limited, path: Path) -> Any:
        lane = lane_of(self._root)
        return await self._steps.invoke_and_wait(path, limited, Where(path=path), concurrency_key=lane)

    async def _cancelled(self, node: Cancelled, path: Path) -> Any:
        return await _or(self._steps.invoke_and_wait(path, waits, Where(path=path)), "cancelled")

    async def _overdue(self, node: Overdue, path: Path) -> Any:
        child = self._steps.invoke_and_wait(
            path, runs_on, Where(path=path), run_timeout_seconds=OVERDUE_SECONDS
        )
        return await _or(child, "overdue")


async def _or(work: Any, instead: Any) -> Any:
    """Return what `work` comes to, or `instead` if it fails as a step does."""
    try:
        return await work
    except StepExecutionError:
        return instead
