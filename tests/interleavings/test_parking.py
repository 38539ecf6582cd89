"""Only code that nothing but the journal can continue is put away, and it writes nothing meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from engines import Engine, ended, engine, until
from scenes import Scene, finishing

from polos import WorkflowContext, workflow
from polos.engine.parking import park
from polos.journal.cancelling import READ_AWAITED_CHILDREN
from polos.journal.runs import READ_RUN, run_record
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.writer import Backend, Journal, PostgresBackend, SqliteBackend

Body = Callable[[WorkflowContext], Awaitable[Any]]
calls: list[str] = []  # what user code did, in this process
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    gates.clear()
    gates["payment"] = asyncio.Event()


@workflow(id="parking-child")
async def child(ctx: WorkflowContext) -> str:
    return "child is done"


async def pay() -> str:
    """A call to the outside that takes its time."""
    calls.append("pay")
    await gates["payment"].wait()
    return "paid"


async def wait_for_child(ctx: WorkflowContext, key: str = "child") -> Any:
    return await ctx.step.invoke_and_wait(key, child)


# -- bodies that only wait


async def one_child(ctx: WorkflowContext) -> Any:
    return await wait_for_child(ctx)


async def gathered(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(wait_for_child(ctx, "one"), wait_for_child(ctx, "two"))


async def nested_gather(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(gathered(ctx), wait_for_child(ctx))


async def waited(ctx: WorkflowContext) -> Any:
    tasks = [asyncio.create_task(wait_for_child(ctx, key)) for key in ("one", "two")]
    await asyncio.wait(tasks)
    return [task.result() for task in tasks]


async def first_completed(ctx: WorkflowContext) -> Any:
    tasks = [asyncio.create_task(wait_for_child(ctx, key)) for key in ("one", "two")]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(tasks)
    return sorted(task.result() for task in done)


async def task_group(ctx: WorkflowContext) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait_for_child(ctx, key)) for key in ("one", "two")]
    return [task.result() for task in tasks]


async def as_completed(ctx: WorkflowContext) -> Any:
    waits = [wait_for_child(ctx, "one"), wait_for_child(ctx, "two")]
    return [await each for each in asyncio.as_completed(waits)]


async def awaited_task(ctx: WorkflowContext) -> Any:
    return await asyncio.create_task(wait_for_child(ctx))


ONLY_WAIT: list[Body] = [
    one_child,
    gathered,
    nested_gather,
    waited,
    first_completed,
    task_group,
    as_completed,
    awaited_task,
]


# -- bodies that are in the middle of something


async def paying_beside(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(pay(), wait_for_child(ctx))


async def paying_in_a_task(ctx: WorkflowContext) -> Any:
    payment = asyncio.create_task(pay())
    return [await wait_for_child(ctx), await payment]


async def paying_in_a_group(ctx: WorkflowContext) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pay()), group.create_task(wait_for_child(ctx))]
    return [task.result() for task in tasks]


async def paying_in_a_step(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(ctx.step.run("pay", pay), wait_for_child(ctx))


async def paying_in_a_thread(ctx: WorkflowContext) -> Any:
    loop = asyncio.get_running_loop()

    def pay_by_thread() -> str:
        calls.append("pay")
        asyncio.run_coroutine_threadsafe(gates["payment"].wait(), loop).result()
        return "paid"

    return await asyncio.gather(asyncio.to_thread(pay_by_thread), wait_for_child(ctx))


async def paying_in_a_waited_task(ctx: WorkflowContext) -> Any:
    tasks = [asyncio.create_task(pay()), asyncio.create_task(wait_for_child(ctx))]
    await asyncio.wait(tasks)
    return [task.result() for task in tasks]


IN_THE_MIDDLE: list[Body] = [
    paying_beside,
    paying_in_a_task,
    paying_in_a_group,
    paying_in_a_step,
    paying_in_a_thread,
    paying_in_a_waited_task,
]


@workflow(id="parking-parent")
async def parent(ctx: WorkflowContext, which: dict[str, str]) -> Any:
    return await BODIES[which["body"]](ctx)


BODIES: dict[str, Body] = {body.__name__: body for body in (*ONLY_WAIT, *IN_THE_MIDDLE)}


def queue_run(scene: Scene, body: Body) -> str:
    BODIES[body.__name__] = body
    return scene.queued(name="parking-parent", input=f'{{"body":"{body.__name__}"}}')


def finish_children(scene: Scene, run_id: str) -> None:
    for child_id, *_ in scene.first.read(READ_AWAITED_CHILDREN, run=run_id):
        scene.do(finishing(scene.claimed(child_id, "x"), '"child is done"'))


@pytest.mark.parametrize("body", ONLY_WAIT)
async def test_a_run_that_only_waits_is_parked_and_goes_on_elsewhere(scene: Scene, body: Body) -> None:
    run_id = queue_run(scene, body)
    async with engine(scene.database, "a") as first, engine(scene.database, "b") as second:
        task = first.start(run_id)
        execution = await first.waiting(run_id)
        assert await park(first.runtime, execution)
        assert await ended(task) == "parked"
        assert scene.run(run_id)["status"] == "waiting"
        assert not execution.tasks

        finish_children(scene, run_id)
        assert await ended(second.start(run_id)) == "completed"
    assert scene.run(run_id)["status"] == "completed"


@pytest.mark.parametrize("body", IN_THE_MIDDLE)
async def test_a_run_in_the_middle_of_a_call_is_not_parked(scene: Scene, body: Body) -> None:
    run_id = queue_run(scene, body)
    async with engine(scene.database, "a") as first:
        task = first.start(run_id)
        await until(lambda: calls and scene.first.read(READ_AWAITED_CHILDREN, run=run_id))
        execution = first.runtime.executions[run_id]
        assert not await park(first.runtime, execution)
        assert scene.run(run_id)["status"] == "running"

        gates["payment"].set()
        finish_children(scene, run_id)
        execution.look_again()
        assert await ended(task) == "completed"
    assert scene.run(run_id)["status"] == "completed"
    assert calls == ["pay"]


# -- while it is put away


async def cleans_up(ctx: WorkflowContext) -> Any:
    try:
        return await wait_for_child(ctx)
    finally:
        await ctx.step.run("cleanup", lambda: calls.append("cleanup"))


async def swallows_everything(ctx: WorkflowContext) -> Any:
    try:
        return await wait_for_child(ctx)
    except BaseException:  # a bug that many programs have
        calls.append("swallowed")
        await ctx.step.run("after", lambda: calls.append("after"))
        return "wrong"


async def returns_wrongly(ctx: WorkflowContext) -> Any:
    try:
        return await wait_for_child(ctx)
    except BaseException:
        return "wrong"


async def generator_with_finally(ctx: WorkflowContext) -> Any:
    async def answers() -> AsyncIterator[Any]:
        try:
            yield await wait_for_child(ctx)
        finally:
            await ctx.step.run("cleanup", lambda: calls.append("cleanup"))

    return [answer async for answer in answers()]


async def starts_a_child_at_the_end(ctx: WorkflowContext) -> Any:
    try:
        return await wait_for_child(ctx)
    finally:
        await ctx.step.invoke("farewell", child)


@pytest.mark.parametrize(
    "body",
    [cleans_up, swallows_everything, returns_wrongly, generator_with_finally, starts_a_child_at_the_end],
)
async def test_nothing_is_written_while_a_run_is_put_away(scene: Scene, body: Body) -> None:
    run_id = queue_run(scene, body)
    async with engine(scene.database, "a") as first, engine(scene.database, "b") as second:
        task = first.start(run_id)
        execution = await first.waiting(run_id)
        assert await park(first.runtime, execution)
        assert await ended(task) == "parked"
        await until(lambda: not execution.tasks)

        assert set(scene.steps(run_id)) == {"child"}
        assert not {"cleanup", "after"} & set(calls)
        assert (scene.run(run_id)["status"], scene.run(run_id)["output"]) == ("waiting", None)

        calls.clear()
        finish_children(scene, run_id)
        assert await ended(second.start(run_id)) == "completed"
    assert "child is done" in scene.run(run_id)["output"]
    assert calls in ([], ["cleanup"])


# -- parking against what happens at the same time


async def test_a_run_that_was_woken_is_not_parked_and_goes_on(scene: Scene) -> None:
    run_id = queue_run(scene, one_child)
    async with engine(scene.database, "a") as first:
        task = first.start(run_id)
        execution = await first.waiting(run_id)
        finish_children(scene, run_id)  # nobody tells: every nudge is lost

        assert not await park(first.runtime, execution)
        assert await ended(task) == "completed"
    assert scene.run(run_id)["output"] == '"child is done"'


async def test_a_run_that_was_taken_away_is_dropped_when_it_is_to_be_parked(scene: Scene) -> None:
    run_id = queue_run(scene, one_child)
    async with engine(scene.database, "a") as first:
        task = first.start(run_id)
        execution = await first.waiting(run_id)
        scene.lose("a")
        scene.claimed(run_id, "z")

        assert not await park(first.runtime, execution)
        assert await ended(task) == "taken over"
    now = run_record(scene.first.read(READ_RUN, run=run_id)[0])
    assert (now["status"], now["owner"]) == ("running", "z")


class GatedBackend:
    """The real backend; while the gate is shut, commits wait before they reach the database."""

    def __init__(self, real: Backend) -> None:
        self._real = real
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def commit(self, units: Sequence[Unit]) -> list[Rows]:
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return await self._real.commit(units)

    async def read(self, statement: Statement, params: Params) -> Rows:
        return await self._real.read(statement, params)

    async def close(self) -> None:
        await self._real.close()


async def goes_on(ctx: WorkflowContext) -> Any:
    try:
        answer = await wait_for_child(ctx)
        await ctx.step.run("after", lambda: calls.append("after"))
    except BaseException:
        calls.append("disturbed")
        raise
    return answer


async def test_code_is_not_disturbed_by_a_park_that_comes_to_nothing(scene: Scene) -> None:
    """The park is on its way to the database when a nudge tells that the child has ended."""
    run_id = queue_run(scene, goes_on)
    database = scene.database
    line = GatedBackend(SqliteBackend(database) if database.is_sqlite else PostgresBackend(database))
    worker = Engine(Journal(line), "a")
    task = worker.start(run_id)
    execution = await worker.waiting(run_id)
    line.open.clear()
    parking = asyncio.create_task(park(worker.runtime, execution))
    await until(lambda: line.waiting)
    finish_children(scene, run_id)
    execution.look_again()
    for _ in range(20):  # the coordinator has every chance to go on too early
        await asyncio.sleep(0.001)
    line.open.set()

    assert not await parking
    assert await ended(task) == "completed"
    assert calls == ["after"]
    await worker.close()
