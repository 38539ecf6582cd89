"""How a worker process ends: warm, cold, soft, and in the middle of each other."""

import signal
from types import ModuleType

import pytest
import redis
from worker_process import unacknowledged, wait_until

SECONDS = 10


@pytest.fixture
def broker(pool_app: ModuleType) -> redis.Redis:
    return redis.Redis(port=pool_app.PORT, db=0)


def marks(pool_app: ModuleType, key: str) -> list[str]:
    return list(pool_app.marks.lrange(key, 0, -1))


def test_sigterm_waits_for_what_executes_and_drains_first(
    start_worker, pool_app: ModuleType, key: str
) -> None:
    worker = start_worker(POOL_TEST_DRAIN=key)
    results = [worker.send(pool_app.gated, key, f"{key}.gate") for _ in range(3)]
    blocking = worker.send(pool_app.gated_blocking, key, f"{key}.gate")
    wait_until(lambda: marks(pool_app, key).count("start") == 4)
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "drain" in marks(pool_app, key))
    pool_app.marks.set(f"{key}.gate", 1)
    assert worker.process.wait(15) == 0
    assert marks(pool_app, key) == ["start"] * 4 + ["drain"] + ["end"] * 4
    assert [r.state for r in [*results, blocking]] == ["SUCCESS"] * 4


def test_sigterm_gives_back_what_was_not_accepted(
    start_worker, pool_app: ModuleType, broker: redis.Redis, key: str
) -> None:
    # given a task that waits in the pool for a slot (its ETA came when there was none), and one in the queue
    worker = start_worker(concurrency=1)
    worker.send(pool_app.say, key, "scheduled", countdown=0.5)
    worker.send(pool_app.gated, key, f"{key}.gate")
    wait_until(lambda: worker.pool()["in-flight"] == 2)
    worker.send(pool_app.say, key, "queued")
    # when
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log.read_text())
    pool_app.marks.set(f"{key}.gate", 1)
    assert worker.process.wait(15) == 0
    # then another worker runs both
    assert broker.llen(worker.queue) == 2
    assert unacknowledged(broker, worker.queue) == 0
    start_worker(concurrency=1, queue=worker.queue)
    wait_until(lambda: sorted(marks(pool_app, key)) == ["end", "queued", "scheduled", "start"])


def test_sigterm_lets_a_task_that_lent_its_slot_resume(start_worker, pool_app: ModuleType, key: str) -> None:
    worker = start_worker(concurrency=1)
    worker.send(pool_app.coordinator, key, f"{key}.wake")
    worker.send(pool_app.gated, key, f"{key}.gate")
    wait_until(lambda: sorted(marks(pool_app, key)) == ["start", "waits"])
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log.read_text())
    pool_app.marks.mset({f"{key}.wake": 1, f"{key}.gate": 1})
    assert worker.process.wait(15) == 0
    assert sorted(marks(pool_app, key)) == ["end", "resumed", "start", "waits"]


def test_sigquit_cancels_and_late_acknowledged_messages_run_again(
    start_worker, pool_app: ModuleType, broker: redis.Redis, key: str
) -> None:
    worker = start_worker(POOL_TEST_DRAIN=f"{key}.drain")
    worker.send(pool_app.gated, key, f"{key}.gate")
    worker.send(pool_app.gated_late, f"{key}.late", f"{key}.gate")
    worker.send(pool_app.gated_blocking, f"{key}.blocking", f"{key}.gate")
    for name in (key, f"{key}.late", f"{key}.blocking"):
        wait_until(lambda name=name: marks(pool_app, name) == ["start"])
    worker.stop(signal.SIGQUIT)
    assert marks(pool_app, key) == ["start", "cancelled"]
    assert marks(pool_app, f"{key}.late") == ["start", "cancelled"]
    assert marks(pool_app, f"{key}.drain") == ["drain"]
    assert broker.llen(worker.queue) == 1
    pool_app.marks.set(f"{key}.gate", 1)
    start_worker(queue=worker.queue)
    wait_until(lambda: marks(pool_app, f"{key}.late") == ["start", "cancelled", "start", "end"])


def test_sigquit_during_a_warm_stop_cancels_the_rest(start_worker, pool_app: ModuleType, key: str) -> None:
    worker = start_worker()
    worker.send(pool_app.gated, key, f"{key}.gate")
    wait_until(lambda: marks(pool_app, key) == ["start"])
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log.read_text())
    worker.stop(signal.SIGQUIT)
    assert marks(pool_app, key) == ["start", "cancelled"]


def test_soft_shutdown_lets_short_tasks_end_and_cancels_long_ones(
    start_worker, pool_app: ModuleType, key: str
) -> None:
    worker = start_worker(POOL_TEST_SOFT_SHUTDOWN="1")
    worker.send(pool_app.gated, key, f"{key}.short", " short")
    worker.send(pool_app.gated, key, f"{key}.long", " long")
    wait_until(lambda: len(marks(pool_app, key)) == 2)
    worker.process.send_signal(signal.SIGQUIT)
    wait_until(lambda: "Initiating Soft Shutdown" in worker.log.read_text())
    pool_app.marks.set(f"{key}.short", 1)
    worker.process.wait(15)
    assert marks(pool_app, key)[2:] == ["end short", "cancelled long"]
