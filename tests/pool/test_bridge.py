"""The greenlet bridge, the mailbox and the daemon threads."""

import asyncio
import contextvars
import threading

import pytest

from polos.threads import DaemonThreads
from polos.worker.bridge import Mailbox, await_, in_bridge, in_greenlet


async def test_sync_code_awaits_and_the_loop_goes_on() -> None:
    order: list[str] = []
    asyncio.get_running_loop().call_soon(order.append, "loop")

    def body() -> int:
        assert in_bridge()
        value = await_(asyncio.sleep(0.01, 41))
        order.append("body")
        return value + 1

    assert await in_greenlet(body) == 42
    assert order == ["loop", "body"]
    assert not in_bridge()


async def test_await_outside_the_bridge_says_what_to_do() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(RuntimeError, match="write `await`"):
        await_(future)


async def test_exceptions_cross_the_bridge_both_ways() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("inner")

    def body() -> None:
        try:
            await_(fails())
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        await in_greenlet(body)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_cancellation_reaches_the_body_and_comes_out_again() -> None:
    unwound = asyncio.Event()

    def body() -> None:
        try:
            await_(asyncio.sleep(30))
        except asyncio.CancelledError:
            unwound.set()
            raise

    task = asyncio.create_task(in_greenlet(body))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwound.is_set()


async def test_a_translated_cancellation_can_be_caught_and_the_body_goes_on() -> None:
    def translate(error: BaseException) -> BaseException:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return TimeoutError("translated")

    def body() -> str:
        try:
            await_(asyncio.sleep(30))
        except TimeoutError as error:
            return await_(asyncio.sleep(0, str(error)))
        return "not cancelled"

    task = asyncio.create_task(in_greenlet(body, translate=translate))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "translated"


async def test_timeouts_and_task_groups_work_through_the_bridge() -> None:
    async def inner() -> str:
        try:
            async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(30))
        except TimeoutError:
            return "timed out"
        return "no timeout"

    assert await in_greenlet(lambda: await_(inner())) == "timed out"


async def test_context_variables_are_those_of_the_surrounding_task() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def inner() -> str:
        return variable.get()

    def body() -> str:
        variable.set("in the bridge")
        return await_(inner())

    assert await in_greenlet(body) == "in the bridge"
    assert variable.get() == "in the bridge"


async def test_many_bridges_run_side_by_side() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 7))
        return number * 2

    results = await asyncio.gather(*(in_greenlet(lambda n=n: await_(double(n))) for n in range(200)))
    assert results == [n * 2 for n in range(200)]


def test_a_mailbox_keeps_the_order_and_survives_a_failing_call() -> None:
    mailbox, seen = Mailbox(direct=False), []
    mailbox.post(seen.append, 1)
    mailbox.post(lambda: 1 / 0)
    mailbox.post(seen.append, 2)
    assert seen == []
    mailbox.drain()
    assert seen == [1, 2]
    mailbox.close()
    mailbox.post(seen.append, 3)
    mailbox.close()
    assert seen == [1, 2, 3]


def test_a_mailbox_without_a_hub_calls_at_once() -> None:
    mailbox, seen = Mailbox(direct=True), []
    mailbox.post(seen.append, threading.current_thread())
    assert seen == [threading.current_thread()]
    mailbox.close()


def test_daemon_threads_are_reused_and_bounded() -> None:
    threads = DaemonThreads("some", limit=3, initializer=lambda: None)
    used: set[str] = set()
    gate = threading.Event()

    def work() -> bool:
        used.add(threading.current_thread().name)
        assert threading.current_thread().daemon
        return gate.wait(5)

    futures = [threads.submit(work) for _ in range(10)]
    gate.set()
    assert all(future.result(5) for future in futures)
    assert len(used) <= 3
    assert threads.submit(lambda: 7).result(5) == 7
    threads.shutdown()


def test_daemon_threads_hand_over_any_exception() -> None:
    threads = DaemonThreads("some", limit=1, initializer=lambda: None)

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        threads.submit(leave).result(5)
    assert threads.submit(lambda: "still there").result(5) == "still there"
    threads.shutdown()
