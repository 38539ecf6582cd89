"""Celery's promises to a task, kept by the asyncio pool."""

import asyncio
from types import ModuleType

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from worker_process import Worker, wait_until

SECONDS = 10


def is_idle(worker: Worker) -> bool:
    info = worker.pool()
    return bool(info["in-flight"] == 0 and info["slots-free"] == info["max-concurrency"])


def marks(pool_app: ModuleType, key: str) -> list[str]:
    return list(pool_app.marks.lrange(key, 0, -1))


def test_request_stays_the_same_over_awaits_and_in_child_tasks(worker: Worker, pool_app: ModuleType) -> None:
    results = [worker.send(pool_app.who, f"w{n}") for n in range(20)]
    assert [r.get(SECONDS) for r in results] == [[True, [f"w{n}"], f"w{n}"] for n in range(20)]


def test_autoretry_runs_the_body_again(worker: Worker, pool_app: ModuleType) -> None:
    assert worker.send(pool_app.flaky, 2).get(SECONDS) == 2


def test_retry_in_the_body_runs_it_again(worker: Worker, pool_app: ModuleType) -> None:
    assert worker.send(pool_app.retrying).get(SECONDS) == 1


def test_exception_makes_the_task_fail(worker: Worker, pool_app: ModuleType) -> None:
    result = worker.send(pool_app.boom)
    with pytest.raises(RuntimeError, match="boom"):
        result.get(SECONDS)
    assert "in boom" in result.traceback


def test_signals_fire_around_the_body(worker: Worker, pool_app: ModuleType) -> None:
    good, bad = worker.send(pool_app.add, 1, 2), worker.send(pool_app.boom)
    wait_until(lambda: len(marks(pool_app, f"signals-{good.id}")) == 2)
    wait_until(lambda: len(marks(pool_app, f"signals-{bad.id}")) == 3)
    assert marks(pool_app, f"signals-{good.id}") == ["prerun True", "postrun SUCCESS"]
    assert marks(pool_app, f"signals-{bad.id}") == ["prerun True", "failure RuntimeError", "postrun FAILURE"]


def test_system_exit_in_a_body_fails_only_its_task(worker: Worker, pool_app: ModuleType) -> None:
    with pytest.raises(Exception, match="SystemExit"):
        worker.send(pool_app.leave).get(SECONDS)
    assert worker.send(pool_app.add, 2, 2).get(SECONDS) == 4


def test_system_exit_in_a_child_task_does_not_stop_the_loop(worker: Worker, pool_app: ModuleType) -> None:
    assert worker.send(pool_app.stray_exit).get(SECONDS) == "survived"
    assert worker.send(pool_app.add, 2, 3).get(SECONDS) == 5


def test_a_body_that_cancels_itself_fails(worker: Worker, pool_app: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="cancelled by its own code"):
        worker.send(pool_app.cancels_itself).get(SECONDS)


def test_tasks_can_await_other_tasks_and_themselves(worker: Worker, pool_app: ModuleType) -> None:
    assert worker.send(pool_app.calls_another).get(SECONDS) == 3
    assert worker.send(pool_app.recursive, 3).get(SECONDS) == 3


def test_soft_limit_can_be_caught_around_a_task_group(worker: Worker, pool_app: ModuleType) -> None:
    assert worker.send(pool_app.soft).get(SECONDS) == "cleaned up"


def test_hard_limit_fails_the_task_and_frees_its_slot(worker: Worker, pool_app: ModuleType) -> None:
    with pytest.raises(TimeLimitExceeded):
        worker.send(pool_app.hard).get(SECONDS)
    wait_until(lambda: is_idle(worker))


def test_hard_limit_of_a_sync_task_is_reported_and_its_slot_kept(
    worker: Worker, pool_app: ModuleType, key: str
) -> None:
    with pytest.raises(TimeLimitExceeded):
        worker.send(pool_app.hard_blocking, key, f"{key}.gate").get(SECONDS)
    assert worker.pool()["slots-free"] == 9
    pool_app.marks.set(f"{key}.gate", 1)
    wait_until(lambda: is_idle(worker))
    assert marks(pool_app, key) == ["start", "end"]


def test_sync_task_blocks_a_thread_and_not_the_loop(worker: Worker, pool_app: ModuleType, key: str) -> None:
    blocking = worker.send(pool_app.gated_blocking, key, f"{key}.gate")
    wait_until(lambda: marks(pool_app, key) == ["start"])
    assert worker.send(pool_app.add, 3, 4).get(SECONDS) == 7
    pool_app.marks.set(f"{key}.gate", 1)
    assert blocking.get(SECONDS).startswith("polos-task")


def test_revoke_cancels_running_tasks_and_leaks_no_slot(
    worker: Worker, pool_app: ModuleType, key: str
) -> None:
    results = [worker.send(pool_app.gated, key, f"{key}.gate") for _ in range(10)]
    wait_until(lambda: len(marks(pool_app, key)) == 10)
    pool_app.app.control.revoke([r.id for r in results], terminate=True, destination=[worker.node])
    for result in results:
        with pytest.raises(TaskRevokedError):
            result.get(SECONDS)
        wait_until(lambda result=result: "revoked" in marks(pool_app, f"signals-{result.id}"))
    wait_until(lambda: is_idle(worker))
    assert marks(pool_app, key).count("cancelled") == 10


def test_a_task_revoked_while_it_waits_in_the_pool_never_starts(
    worker: Worker, pool_app: ModuleType, key: str
) -> None:
    # given a task that came past the intake bound: taken while there was room, due when there is none
    waiting = worker.send(pool_app.say, f"{key}.said", "ran", countdown=0.5)
    holders = [worker.send(pool_app.gated, key, f"{key}.gate") for _ in range(10)]
    wait_until(lambda: worker.pool()["in-flight"] == 11)
    # when
    waiting.revoke()
    pool_app.marks.set(f"{key}.gate", 1)
    # then
    with pytest.raises(TaskRevokedError):
        waiting.get(SECONDS)
    assert [h.get(SECONDS) for h in holders] == [""] * 10
    assert marks(pool_app, f"{key}.said") == []


def test_stats_name_the_loop_and_the_real_process(worker: Worker, pool_app: ModuleType, key: str) -> None:
    info = worker.pool()
    assert info["loop"] in {"uvloop", "asyncio"}
    assert info["processes"] == [worker.process.pid]
    result = worker.send(pool_app.gated, key, f"{key}.gate")
    wait_until(lambda: marks(pool_app, key) == ["start"])
    active = worker.inspect("active")
    assert active[0]["worker_pid"] == worker.process.pid
    assert active[0]["acknowledged"] is True
    pool_app.marks.set(f"{key}.gate", 1)
    result.get(SECONDS)


async def test_a_task_called_directly_is_a_coroutine(pool_app: ModuleType) -> None:
    assert await pool_app.add(5, 6) == 11


def test_an_eager_task_runs_to_its_end(pool_app: ModuleType) -> None:
    assert pool_app.add.apply((5, 7)).get() == 12


async def test_an_eager_task_on_a_running_loop_says_what_to_do(pool_app: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="await it instead"):
        pool_app.add.apply((5, 7), throw=True)


async def test_an_eager_task_runs_in_a_thread_beside_a_loop(pool_app: ModuleType) -> None:
    result = await asyncio.to_thread(pool_app.add.apply, (5, 8))
    assert result.get() == 13
