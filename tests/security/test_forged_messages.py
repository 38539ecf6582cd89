"""What somebody who can write to the broker can make a worker do: look at a row, and nothing else."""

from __future__ import annotations

import json
import pickle
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
from crowd import Crowd, wait_until

from polos import PolosClient
from polos.routes import TURN_TASK
from polos.settings import Settings
from polos.worker.unreadable import MAX_DOORBELL_BYTES

NO_DOORBELL = "no doorbell"
HELD = "held elsewhere"
UNKNOWN = "unknown run"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {}),
        ([1], {}),
        ([None], {}),
        ([["x"]], {}),
        ([{"run_id": "x"}], {}),
        ([""], {}),
        (["a\0b"], {}),
        (["x" * 2000], {}),
        (["x", "y"], {}),
        (["x"], {"attempt": 7}),
        ([], {"run_id": "x"}),
    ],
)
def test_arguments_that_are_no_id_are_thrown_away(crowd: Crowd, args: list[Any], kwargs: Any) -> None:
    assert crowd.became(crowd.forge(args, kwargs)) == NO_DOORBELL


@pytest.mark.parametrize("args", [["x"], ["x", 1], ["x", "y", "z"], [None, "y"]])
def test_arguments_that_are_no_turn_are_thrown_away(crowd: Crowd, args: list[Any]) -> None:
    assert crowd.became(crowd.forge(args, task=TURN_TASK)) == NO_DOORBELL


@pytest.mark.parametrize(
    "run_id",
    [
        "858589d4-65f3-47a0-9d0b-ad3d43436366",
        "' OR 1=1 --",
        "%",
        "../../etc/passwd",
        "{0.__class__}",
        "é\n\r\x1b[2J",
    ],
)
def test_an_id_of_no_run_finds_none(crowd: Crowd, run_id: str) -> None:
    assert crowd.became(crowd.forge([run_id])) == UNKNOWN
    assert crowd.became(crowd.forge([run_id, "turn_1"], task=TURN_TASK)) == UNKNOWN


def test_a_run_that_has_ended_is_not_run_again(crowd: Crowd) -> None:
    run_id = crowd.client.invoke("pay", {"to": "ada"}).id
    assert crowd.result(run_id) == "ada"
    before = crowd.run(run_id)
    assert crowd.became(crowd.forge([run_id])) == HELD
    for step in ("pay", "$pay", "turn_1", "", "pay' OR '1'='1"):
        became = crowd.became(crowd.forge([run_id, step], task=TURN_TASK))
        assert became == (HELD if step else NO_DOORBELL)
    assert crowd.run(run_id) == before
    assert crowd.ledger.count("paid ada") == 1


def test_a_run_under_way_is_not_run_beside_itself(crowd: Crowd) -> None:
    """However often it is rung, and under whichever task id."""
    gate = crowd.folder / "gate"
    run_id = crowd.client.invoke("pay", {"to": "bob", "gate": str(gate)}).id
    wait_until(lambda: "paid bob" in crowd.ledger)
    twice = str(uuid.uuid4())
    for task_id in (twice, twice, "", "polos", "../x", "\n[x] succeeded"):
        crowd.forge([run_id], task_id=task_id)
        crowd.forge([run_id, "pay"], task=TURN_TASK, task_id=task_id)
    assert crowd.became(crowd.forge([run_id])) == HELD
    assert crowd.run(run_id)["attempt"] == 1
    gate.touch()
    assert crowd.result(run_id) == "bob"
    assert crowd.ledger.count("paid bob") == 1


def test_a_question_is_not_answered_by_a_message(crowd: Crowd) -> None:
    run_id = crowd.client.invoke("asks", {"name": "carl"}).id
    wait_until(lambda: crowd.run(run_id)["status"] == "waiting" or crowd.run(run_id)["seq"] > 0)
    for step in ("question", "$question", "note"):
        crowd.became(crowd.forge([run_id, step], task=TURN_TASK))
    crowd.became(crowd.forge([run_id]))
    assert crowd.run(run_id)["finished_at"] is None
    assert "answered carl" not in crowd.ledger
    crowd.client.resume(run_id, run_id, "question", {"ok": True})
    assert crowd.result(run_id) == "{'ok': True}"
    assert crowd.ledger.count("answered carl") == 1


@pytest.mark.parametrize("elsewhere", [{"project_id": "another"}, {"deployment_id": "another"}])
def test_a_run_of_another_project_or_deployment_is_not_served(crowd: Crowd, elsewhere: Any) -> None:
    """Whatever queue its id is sent to."""
    settings = Settings.from_environment(crowd.environment).with_values(embedded_worker="0")
    with PolosClient(settings=settings, **elsewhere).sync as client:
        run_id = client.invoke("pay", {"to": "dora"}).id
    assert crowd.became(crowd.forge([run_id])) == "nobody serves it"
    run = crowd.run(run_id)
    assert (run["status"], run["attempt"]) == ("queued", 0)
    assert "paid dora" not in crowd.ledger


@pytest.mark.parametrize("shadow", [1, ["pay"], {"x": "y"}, "pay", "nobody", "x" * 10_000, ""])
def test_a_label_changes_nothing(crowd: Crowd, shadow: object) -> None:
    assert crowd.became(crowd.forge(["x"], shadow=shadow)) == UNKNOWN


class _Bomb:
    """Pickled, it is the order to make a file."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self._target,)


def refused(crowd: Crowd, send: Any, *args: Any, **options: Any) -> None:
    before = crowd.refusals()
    send(*args, **options)
    wait_until(lambda: crowd.refusals() > before or crowd.worker.poll() is not None)
    crowd.is_well()


@pytest.mark.parametrize("kind", ["application/x-python-serialize", "pickle", "application/x-yaml", "x", ""])
def test_nothing_but_json_is_unpacked(crowd: Crowd, kind: str) -> None:
    target = crowd.folder / "pickled"
    yaml = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{target}']]"
    body = yaml.encode() if "yaml" in kind else pickle.dumps(([_Bomb(target)], {}, {}))
    refused(crowd, crowd.forge, None, body=body, content_type=kind)
    assert not target.exists()


def test_pickled_content_of_no_task_is_not_unpacked(crowd: Crowd) -> None:
    target = crowd.folder / "pickled"
    for task in ("none.such", None, 3):
        body = pickle.dumps(([_Bomb(target)], {}, {}))
        crowd.forge(None, body=body, content_type="application/x-python-serialize", task=task)
    crowd.is_well()
    assert not target.exists()


RAW = {
    "no JSON": b"garbage",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"3",
    "nothing": b"",
    "null": b"null",
    "an empty object": b"{}",
    "no properties": b'{"body": "x"}',
    "properties of another type": b'{"body": "x", "properties": 3}',
    "nested too deeply": b"[" * 200_000,
    "a number of a million digits": b"1" * 1_000_000,
    "a type of kombu's": b'{"__type__": "datetime", "__value__": "x"}',
    "no base64": json.dumps(
        {"body": "!", "properties": {"body_encoding": "base64", "delivery_tag": "x"}}
    ).encode(),
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
def test_bytes_that_are_no_message_cost_no_worker(crowd: Crowd, raw: bytes) -> None:
    refused(crowd, crowd.push, raw)


def test_a_task_whose_name_is_none_costs_no_worker(crowd: Crowd) -> None:
    for name in (["polos.run"], {"polos.run": 1}):
        refused(crowd, crowd.forge, ["x"], task=name)


@pytest.mark.parametrize(
    "headers", [{"eta": "soon"}, {"expires": []}, {"timelimit": 3}, {"retries": "x"}, {"compression": "none"}]
)
def test_headers_that_are_none_cost_no_worker(crowd: Crowd, headers: dict[str, Any]) -> None:
    crowd.forge(["x"], **headers)
    crowd.is_well()


def test_a_compressed_message_is_not_unpacked(crowd: Crowd) -> None:
    """A thousandth of its size on the way would be enough to fill the memory of a worker."""
    bomb = zlib.compress(b'[["' + b"x" * 50_000_000 + b'"], {}, {}]')
    refused(crowd, crowd.forge, None, body=bomb, compression="application/x-gzip")


def test_a_large_message_is_not_unpacked(crowd: Crowd) -> None:
    refused(crowd, crowd.forge, ["x" * MAX_DOORBELL_BYTES])


@pytest.mark.parametrize(
    "body", [b"[" * 9000, b"{", b"", b"3", b'[["x"]]', b"[3, {}, {}]", b"[[NaN], {}, {}]"]
)
def test_a_body_that_is_none_costs_no_worker(crowd: Crowd, body: bytes) -> None:
    crowd.forge(None, body=body)
    crowd.is_well()


def test_garbage_for_remote_control_costs_no_worker(crowd: Crowd) -> None:
    """Celery's own broadcasts come by another way than tasks."""
    for raw in (b"garbage", b"[]", b"{}", b"3", b'{"properties": 3}'):
        assert crowd.broker.publish("/11.celery.pidbox", raw) > 0
    crowd.is_well()
