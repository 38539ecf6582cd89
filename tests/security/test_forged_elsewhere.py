"""What forged messages come to over RabbitMQ, and on Celery's own pools: as everywhere else, nothing."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from brokers.broker_servers import RabbitMQ, rabbitmq
from crowd import Crowd, crowd_in, wait_until
from test_forged_messages import HELD, NO_DOORBELL, UNKNOWN, _Bomb, refused

from polos.routes import DEFAULT_ROUTE, RUN_TASK, TURN_TASK
from polos.worker.unreadable import MAX_DOORBELL_BYTES

pytestmark = pytest.mark.timeout(180)
FEW = ("--concurrency", "2")  # processes of a prefork pool


class RabbitCrowd(Crowd):
    """Writes to a RabbitMQ."""

    def publish(self, body: bytes, **properties: Any) -> None:
        """Put a message into a queue, as whoever can reach the broker."""
        with (
            kombu.Connection(self.environment["POLOS_BROKER_URL"]) as connection,
            connection.channel() as channel,
        ):
            message = channel.prepare_message(body, **properties)
            channel.basic_publish(message, exchange="", routing_key=DEFAULT_ROUTE)

    def forge(
        self,
        args: object,
        kwargs: object = None,
        *,
        task: object = RUN_TASK,
        body: bytes | None = None,
        content_type: str = "application/json",
        task_id: str = "",
        **headers: object,
    ) -> str:
        task_id = task_id or str(uuid.uuid4())
        self.publish(
            json.dumps([args, kwargs or {}, {}]).encode() if body is None else body,
            content_type=content_type,
            content_encoding="utf-8",
            headers={"lang": "py", "task": task, "id": task_id, **headers},
            properties={"correlation_id": task_id},
        )
        return task_id

    def push(self, raw: bytes, **_: object) -> None:
        self.publish(raw)


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with rabbitmq(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture(scope="module", params=["rabbitmq", "prefork", "threads", "solo"])
def crowd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey_url: str
) -> Iterator[Crowd]:
    """A worker that takes forged messages by another way than the others of this folder."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "rabbitmq":
        settings = {
            "POLOS_BROKER_URL": request.getfixturevalue("rabbit").vhost("forged"),
            "POLOS_REDIS_URL": f"{valkey_url}/11",
            "POLOS_REDIS_PREFIX": "forged:",
        }
        with crowd_in(folder, valkey_url, crowd_of=RabbitCrowd, **settings) as crowd:
            yield crowd
    else:
        settings = {"POLOS_BROKER_URL": f"{valkey_url}/10", "POLOS_REDIS_PREFIX": f"{request.param}:"}
        with crowd_in(folder, valkey_url, "--pool", request.param, *FEW, **settings) as crowd:
            yield crowd


def test_ids_that_are_forged_find_nothing(crowd: Crowd) -> None:
    assert crowd.became(crowd.forge([])) == NO_DOORBELL
    assert crowd.became(crowd.forge([["x"]], {"attempt": 7})) == NO_DOORBELL
    assert crowd.became(crowd.forge(["' OR 1=1 --"])) == UNKNOWN
    assert crowd.became(crowd.forge(["858589d4-65f3-47a0-9d0b-ad3d43436366", "x"], task=TURN_TASK)) == UNKNOWN


def test_a_run_that_has_ended_is_not_run_again(crowd: Crowd) -> None:
    name = uuid.uuid4().hex
    run_id = crowd.client.invoke("pay", {"to": name}).id
    assert crowd.result(run_id) == name
    before = crowd.run(run_id)
    assert crowd.became(crowd.forge([run_id])) == HELD
    assert crowd.became(crowd.forge([run_id, "pay"], task=TURN_TASK)) == HELD
    assert crowd.run(run_id) == before
    assert crowd.ledger.count(f"paid {name}") == 1


def test_a_run_under_way_is_not_run_beside_itself(crowd: Crowd) -> None:
    name, gate = uuid.uuid4().hex, crowd.folder / "gate"
    run_id = crowd.client.invoke("pay", {"to": name, "gate": str(gate)}).id
    wait_until(lambda: f"paid {name}" in crowd.ledger)
    for _ in range(3):
        crowd.forge([run_id])
    gate.touch()
    assert crowd.result(run_id) == name
    assert crowd.run(run_id)["attempt"] == 1
    assert crowd.ledger.count(f"paid {name}") == 1


@pytest.mark.parametrize("kind", ["application/x-python-serialize", "pickle", ""])
def test_pickled_content_is_not_unpacked(crowd: Crowd, kind: str) -> None:
    target: Path = crowd.folder / "pickled"
    body = pickle.dumps(([_Bomb(target)], {}, {}))
    refused(crowd, crowd.forge, None, body=body, content_type=kind)
    assert not target.exists()


@pytest.mark.parametrize("raw", [b"garbage", b"\xff\xfe", b"", b"[" * 100_000, b"{}"])
def test_bytes_that_are_no_message_cost_no_worker(crowd: Crowd, raw: bytes) -> None:
    crowd.push(raw)
    crowd.is_well()


def test_a_large_message_is_not_unpacked(crowd: Crowd) -> None:
    refused(crowd, crowd.forge, ["x" * MAX_DOORBELL_BYTES])


@pytest.mark.parametrize("body", [b"[" * 9000, b"{", b"3", b"[3, {}, {}]"])
def test_a_body_that_is_none_costs_no_worker(crowd: Crowd, body: bytes) -> None:
    crowd.forge(None, body=body)
    crowd.is_well()
