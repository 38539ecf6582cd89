"""How many messages a worker takes, and who executes when slots are lent."""

import time
from types import ModuleType, SimpleNamespace

import pytest
import redis
from celery.concurrency.solo import TaskPool
from worker_process import Worker, unacknowledged, wait_until

from polos.worker.intake import IntakeStep
from polos.worker.pool import AsyncioPool

SECONDS = 10


@pytest.fixture
def broker(pool_app: ModuleType) -> redis.Redis:
    return redis.Redis(port=pool_app.PORT, db=0)


def marks(pool_app: ModuleType, key: str) -> list[str]:
    return list(pool_app.marks.lrange(key, 0, -1))


def counts(pool_app: ModuleType, key: str) -> dict[str, int]:
    return {node: int(count) for node, count in pool_app.marks.hgetall(key).items()}


def test_two_workers_share_a_queue_and_neither_executes_more_than_its_slots(
    start_worker, pool_app: ModuleType, broker: redis.Redis, key: str
) -> None:
    # given 200 waiting tasks that acknowledge early
    first = start_worker(concurrency=10)
    second = start_worker(concurrency=10, queue=first.queue)
    for _ in range(200):
        first.send(pool_app.counted, key, f"{key}.gate")
    # when as many execute as can
    wait_until(lambda: sum(counts(pool_app, f"{key}.taken").values()) == 20)
    # then the rest is still in the queue, for anybody
    assert counts(pool_app, f"{key}.taken") == {first.node: 10, second.node: 10}
    assert broker.llen(first.queue) == 180
    wait_until(lambda: unacknowledged(broker, first.queue) == 0)
    assert first.pool()["in-flight"] == second.pool()["in-flight"] == 10
    # and to the end no worker executes more, and both get work
    pool_app.marks.set(f"{key}.gate", 1)
    wait_until(lambda: sum(counts(pool_app, f"{key}.taken").values()) == 200, seconds=20)
    wait_until(lambda: not any(counts(pool_app, f"{key}.running").values()))
    most, taken = counts(pool_app, f"{key}.most"), counts(pool_app, f"{key}.taken")
    assert most == {first.node: 10, second.node: 10}
    assert min(taken.values()) > 10
    wait_until(lambda: unacknowledged(broker, first.queue) == 0)


@pytest.mark.parametrize("disable_prefetch", ["", "1"])
def test_a_lent_slot_lets_other_tasks_in(
    start_worker, pool_app: ModuleType, key: str, disable_prefetch
) -> None:
    worker = start_worker(concurrency=1, POOL_TEST_DISABLE_PREFETCH=disable_prefetch)
    waiting = [worker.send(pool_app.coordinator, key, f"{key}.gate") for _ in range(20)]
    wait_until(lambda: marks(pool_app, key) == ["waits"] * 20)
    assert worker.send(pool_app.add, 1, 2).get(SECONDS) == 3
    pool_app.marks.set(f"{key}.gate", 1)
    for result in waiting:
        result.get(SECONDS)
    assert worker.pool()["slots-free"] == 1


def test_a_slot_that_becomes_free_is_filled_at_once(start_worker, pool_app: ModuleType, key: str) -> None:
    worker = start_worker(concurrency=1)
    waited = 0.0
    for number in range(5):
        name = f"{key}.{number}"
        worker.send(pool_app.holds_then_lends, name, f"{name}.gate", f"{name}.wake")
        wait_until(lambda name=name: marks(pool_app, name) == ["holds"])
        result = worker.send(pool_app.say, name, "taken")
        began = time.monotonic()
        pool_app.marks.set(f"{name}.gate", 1)
        result.get(SECONDS)
        waited += time.monotonic() - began
        pool_app.marks.set(f"{name}.wake", 1)
    assert waited < 1.25  # left to the hub's own poll of a second: 2.5 s


def test_a_resumed_task_goes_ahead_of_new_ones(start_worker, pool_app: ModuleType, key: str) -> None:
    # given a coordinator that lends the only slot, its holder, and a new task behind them
    worker = start_worker(concurrency=1)
    worker.send(pool_app.coordinator, key, f"{key}.wake")
    wait_until(lambda: marks(pool_app, key) == ["waits"])
    worker.send(pool_app.gated, key, f"{key}.gate", " holder")
    wait_until(lambda: marks(pool_app, key)[-1] == "start holder")
    last = worker.send(pool_app.say, key, "new")
    # when the coordinator may go on, and then the holder ends
    pool_app.marks.set(f"{key}.wake", 1)
    wait_until(lambda: worker.pool()["slots-waiting"] == 1)
    pool_app.marks.set(f"{key}.gate", 1)
    # then
    last.get(SECONDS)
    assert marks(pool_app, key) == ["waits", "start holder", "end holder", "resumed", "new"]


def test_a_message_popped_for_a_slot_that_is_taken_again_goes_to_another_worker(
    start_worker, pool_app: ModuleType, key: str
) -> None:
    # given a worker whose pop is pending while a resuming task takes its only slot for good
    busy = start_worker(concurrency=1)
    busy.send(pool_app.lends_then_holds, key, f"{key}.wake", f"{key}.gate")
    wait_until(lambda: marks(pool_app, key) == ["waits"])
    pool_app.marks.set(f"{key}.wake", 1)
    wait_until(lambda: marks(pool_app, key) == ["waits", "holds"])
    # when a message comes
    result = busy.send(pool_app.add, 2, 3)
    start_worker(concurrency=1, queue=busy.queue)
    # then it does not wait for the busy worker
    assert result.get(SECONDS) == 5
    assert marks(pool_app, key) == ["waits", "holds"]


def cut_consumers(broker: redis.Redis) -> None:
    """Cut the connections workers wait for messages on; the worker notices, the tests' own stay."""
    consumers = wait_until(lambda: [client for client in broker.client_list() if client["cmd"] == "brpop"])
    for client in consumers:
        broker.client_kill_filter(_id=client["id"])


def test_a_cut_broker_connection_costs_no_task_and_the_bound_holds_afterwards(
    start_worker, pool_app: ModuleType, broker: redis.Redis, key: str
) -> None:
    worker: Worker = start_worker(concurrency=2)
    running = worker.send(pool_app.gated, key, f"{key}.gate", " before")
    wait_until(lambda: marks(pool_app, key) == ["start before"])
    # when
    cut_consumers(broker)
    wait_until(lambda: "Connection to broker lost" in worker.log.read_text())
    # then the running task goes on, and beside it only one of five new ones is taken
    after = [worker.send(pool_app.gated, key, f"{key}.gate", " after") for _ in range(5)]
    wait_until(lambda: "start after" in marks(pool_app, key))
    assert worker.pool()["in-flight"] == 2
    assert broker.llen(worker.queue) == 4
    pool_app.marks.set(f"{key}.gate", 1)
    assert running.get(SECONDS) == " before"
    assert [result.get(SECONDS) for result in after] == [" after"] * 5
    assert marks(pool_app, key).count("start before") == 1


def test_brokers_that_push_get_a_prefetch_of_the_slots() -> None:
    pool = AsyncioPool(7, app=None)
    consumer = SimpleNamespace(
        pool=pool, prefetch_multiplier=4, initial_prefetch_count=28, create_task_handler=lambda: None
    )
    IntakeStep(consumer).create(consumer)
    assert (consumer.initial_prefetch_count, consumer.prefetch_multiplier) == (7, 1)


def test_other_pools_are_left_alone() -> None:
    consumer = SimpleNamespace(pool=TaskPool(1))
    assert not IntakeStep(consumer).include_if(consumer)
