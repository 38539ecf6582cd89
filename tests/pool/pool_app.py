"""The Celery app the pool is tested with, in the test process and in the `celery worker` processes."""

import asyncio
import os
import threading
import time
from typing import Any

import redis
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded

from polos.worker.bridge import AsyncTask
from polos.worker.intake import IntakeStep
from polos.worker.slots import current_slot

PORT = int(os.environ["POOL_TEST_PORT"])
SERVER = f"redis://127.0.0.1:{PORT}"
app = Celery("pool_app", broker=f"{SERVER}/0", backend=f"{SERVER}/1", task_cls=AsyncTask)
app.conf.update(
    worker_pool="polos.worker.pool:AsyncioPool",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("POOL_TEST_SOFT_SHUTDOWN", "0")),
    worker_disable_prefetch=bool(os.environ.get("POOL_TEST_DISABLE_PREFETCH")),
)
app.steps["consumer"].add(IntakeStep)


def store() -> redis.Redis:
    """Where tasks leave marks, and tests open gates."""
    return redis.Redis(port=PORT, db=2, decode_responses=True)


marks = store()


async def opened(gate: str) -> None:
    """Return when the test has opened the gate."""
    # Not through redis.asyncio, which swallows a cancellation now and then.
    while not marks.exists(gate):
        await asyncio.sleep(0.01)


def blocked(gate: str) -> None:
    """Block this thread until the test has opened the gate."""
    while not marks.exists(gate):
        time.sleep(0.01)


@app.task(bind=True)
async def who(self: Any, word: str) -> list[Any]:
    before = self.request.id
    await asyncio.sleep(0.02)

    async def child() -> str:
        await asyncio.sleep(0.01)
        return str(self.request.id)

    seen = await asyncio.create_task(child())
    return [before == self.request.id == seen, self.request.args, word]


@app.task(bind=True, autoretry_for=(KeyError,), retry_kwargs={"countdown": 0, "max_retries": 5})
async def flaky(self: Any, times: int) -> int:
    await asyncio.sleep(0.01)
    if self.request.retries < times:
        raise KeyError(times)
    return int(self.request.retries)


@app.task(bind=True, max_retries=3)
async def retrying(self: Any) -> int:
    await asyncio.sleep(0.01)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task
async def boom() -> None:
    await asyncio.sleep(0.01)
    raise RuntimeError("boom")


@app.task
async def leave() -> None:
    await asyncio.sleep(0.01)
    raise SystemExit(3)


@app.task
async def stray_exit() -> str:
    async def child() -> None:
        raise SystemExit(4)

    stray = asyncio.create_task(child())
    await asyncio.wait({stray})
    return "survived"


@app.task
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@app.task
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0.01)
    return x + y


@app.task(soft_time_limit=0.2, time_limit=20)
async def soft() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(30))
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
        return "cleaned up"
    return "no limit"


@app.task(time_limit=0.2)
async def hard() -> None:
    await asyncio.sleep(30)


@app.task(time_limit=0.2)
def hard_blocking(key: str, gate: str) -> None:
    marks.rpush(key, "start")
    blocked(gate)
    marks.rpush(key, "end")


@app.task
async def gated(key: str, gate: str, name: str = "") -> str:
    """Marks its start and end; a cancellation instead of the end."""
    marks.rpush(key, f"start{name}")
    try:
        await opened(gate)
    except asyncio.CancelledError:
        marks.rpush(key, f"cancelled{name}")
        raise
    marks.rpush(key, f"end{name}")
    return name


@app.task(acks_late=True)
async def gated_late(key: str, gate: str) -> None:
    await gated(key, gate)


@app.task
def gated_blocking(key: str, gate: str) -> str:
    marks.rpush(key, "start")
    blocked(gate)
    marks.rpush(key, "end")
    return threading.current_thread().name


@app.task(bind=True)
async def counted(self: Any, key: str, gate: str) -> None:
    """Keeps, per worker, how many execute now and how many did at most."""
    node = self.request.hostname
    running = marks.hincrby(f"{key}.running", node, 1)
    if running > int(marks.hget(f"{key}.most", node) or 0):
        marks.hset(f"{key}.most", node, running)
    marks.hincrby(f"{key}.taken", node, 1)
    await opened(gate)
    await asyncio.sleep(0.005)
    marks.hincrby(f"{key}.running", node, -1)


@app.task
async def coordinator(key: str, gate: str, name: str = "") -> None:
    """Lends its slot while it waits."""
    slot = current_slot()
    assert slot is not None
    marks.rpush(key, f"waits{name}")
    async with slot.released():
        await opened(gate)
    marks.rpush(key, f"resumed{name}")


@app.task
async def holds_then_lends(key: str, gate: str, wake: str) -> None:
    """Holds its slot until the gate opens, then lends it until it is woken."""
    slot = current_slot()
    assert slot is not None
    marks.rpush(key, "holds")
    await opened(gate)
    async with slot.released():
        await opened(wake)


@app.task
async def lends_then_holds(key: str, wake: str, gate: str) -> None:
    """Lends its slot until it is woken, then holds it."""
    slot = current_slot()
    assert slot is not None
    marks.rpush(key, "waits")
    async with slot.released():
        await opened(wake)
    marks.rpush(key, "holds")
    await opened(gate)


@app.task
async def say(key: str, word: str) -> None:
    marks.rpush(key, word)


@app.task(bind=True)
async def recursive(self: Any, depth: int) -> int:
    return 0 if depth == 0 else 1 + await self(depth - 1)


@app.task
async def calls_another() -> int:
    return int(await add(1, 2))


SIGNALS = os.environ.get("POOL_TEST_SIGNALS")
if SIGNALS:

    @signals.task_prerun.connect
    def _prerun(task_id: str, task: Any, **_: Any) -> None:
        marks.rpush(f"signals-{task_id}", f"prerun {task.request.id == task_id}")

    @signals.task_postrun.connect
    def _postrun(task_id: str, state: str, **_: Any) -> None:
        marks.rpush(f"signals-{task_id}", f"postrun {state}")

    @signals.task_failure.connect
    def _failure(task_id: str, exception: Exception, **_: Any) -> None:
        marks.rpush(f"signals-{task_id}", f"failure {type(exception).__name__}")

    @signals.task_revoked.connect
    def _revoked(request: Any, **_: Any) -> None:
        marks.rpush(f"signals-{request.id}", "revoked")


@signals.worker_ready.connect
def _note_drain(sender: Any, **_: Any) -> None:
    key = os.environ.get("POOL_TEST_DRAIN")
    if key:
        sender.pool.on_drain.append(lambda: marks.rpush(key, "drain"))
