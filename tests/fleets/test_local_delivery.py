"""What a worker can do itself does not travel: the same tasks, fewer messages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from models.servers import ModelServer
from services import valkey
from worker_fleet import Fleet

from polos.dispatch import Doorbell
from polos.worker.local_delivery import LocalDelivery

pytestmark = pytest.mark.timeout(120)
NEXT = "__keyspace@0__:polos.next"  # of what is under way
RUNG_AGAIN = "SELECT name FROM run WHERE rings > 0 UNION SELECT name FROM step WHERE rings > 0"


@pytest.fixture
def broker(fleet: Fleet) -> Iterator[redis.Redis]:
    with valkey() as url, redis.Redis.from_url(f"{url}/0") as client:
        fleet.folder.environment["POLOS_BROKER_URL"] = f"{url}/0"
        client.config_set("notify-keyspace-events", "Kl")
        yield client


@contextlib.contextmanager
def counting(broker: redis.Redis) -> Iterator[Callable[[], int]]:
    """Count the messages for what is under way."""
    pushed = 0
    with broker.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(NEXT)

        def count() -> int:
            nonlocal pushed
            while (message := heard.get_message(timeout=0.2)) is not None:
                pushed += message["data"] == b"lpush"
            return pushed

        heard.get_message(timeout=5)
        yield count


@pytest.mark.parametrize(("share", "messages"), [("0.5", 0), ("0", 4)])
def test_turns_and_tools_of_a_run_stay_with_a_worker_that_has_room(
    fleet: Fleet, broker: redis.Redis, model_of_fleets: ModelServer, share: str, messages: int
) -> None:
    worker = fleet.worker("-c", "8", "-E", POLOS_LOCAL_DELIVERY=share)
    model_of_fleets.calls(("temperature", {"city": "Oslo"}), ("where", {}))
    model_of_fleets.says("It is 4 degrees.")
    with counting(broker) as count:
        assert fleet.run("clerk", {"input": "How warm is it?"})["result"] == "It is 4 degrees."
        assert count() == messages
    said = worker.text
    assert said.count("Task clerk.turn[") == 4, "received and succeeded, twice"
    assert said.count("Task temperature[") == 2
    assert fleet.query(RUNG_AGAIN) == []


def test_what_exceeds_its_share_goes_to_the_fleet(fleet: Fleet, broker: redis.Redis) -> None:
    fleet.workers(2, "-c", "4", POLOS_LOCAL_DELIVERY="0.5")
    with counting(broker) as count:
        trees = fleet.start(*[("root", {"n": number}) for number in range(30)])
        assert fleet.results(trees) == [2 * (2 * number + 1) for number in range(30)]
        assert 0 < count() < 90, "some of the 90 children travelled, and some did not"
    assert fleet.query(RUNG_AGAIN) == []


# -- by itself


class Elsewhere:
    def __init__(self) -> None:
        self.bells: list[Doorbell] = []

    def ring(self, *bells: Doorbell) -> None:
        self.bells += bells


def local_delivery(elsewhere: Elsewhere, *, is_draining: bool = False) -> tuple[LocalDelivery, Any]:
    posted: list[tuple[Any, ...]] = []
    pool = SimpleNamespace(
        limit=4, room=4, is_draining=is_draining, on_drain=[], post=lambda *call: posted.append(call)
    )
    worker = SimpleNamespace(app=None, pool=pool, consumer=None)
    delivery = LocalDelivery(worker, share=0.5, serves={"polos"}, deployment="default", elsewhere=elsewhere)
    return delivery, SimpleNamespace(pool=pool, posted=posted)


OURS = Doorbell("run", "label", begun=True)


def test_what_was_not_begun_when_the_worker_ends_is_rung_elsewhere() -> None:
    elsewhere = Elsewhere()
    delivery, worker = local_delivery(elsewhere)
    delivery.ring(OURS)
    assert elsewhere.bells == []
    [give_up] = worker.pool.on_drain
    give_up()
    assert elsewhere.bells == [OURS]
    for function, *args in worker.posted:
        function(*args)  # finds that it was given up
    assert elsewhere.bells == [OURS]


@pytest.mark.parametrize(
    "bell",
    [
        Doorbell("run", "label"),
        Doorbell("run", "label", begun=True, hostname="w2@here"),
        Doorbell("run", "label", begun=True, deployment="v2"),
        Doorbell("run", "label", begun=True, route="other"),
    ],
    ids=["new", "another worker's", "another version's", "another route's"],
)
def test_what_is_not_for_this_worker_travels(bell: Doorbell) -> None:
    elsewhere = Elsewhere()
    delivery, worker = local_delivery(elsewhere)
    delivery.ring(bell)
    assert elsewhere.bells == [bell]
    assert worker.posted == []


def test_a_worker_that_ends_rings_elsewhere() -> None:
    elsewhere = Elsewhere()
    delivery, _ = local_delivery(elsewhere, is_draining=True)
    delivery.ring(OURS)
    assert elsewhere.bells == [OURS]
