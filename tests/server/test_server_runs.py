"""Runs over HTTP, executed by a real worker."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest
from stand import API, Stand

pytestmark = pytest.mark.usefixtures("worker")


def start(client: httpx.Client, workflow_id: str, payload: Any, **more: Any) -> dict[str, Any]:
    answer = client.post(f"{API}/workflows/{workflow_id}/run", json={"payload": payload, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(client: httpx.Client, execution_id: str) -> dict[str, Any]:
    for _ in range(3):
        record = client.get(f"{API}/executions/{execution_id}", params={"wait": 30}).json()
        if record["completed_at"] is not None:
            break
    return record


def test_a_run_is_started_and_its_result_is_waited_for(shop: httpx.Client) -> None:
    started = start(shop, "add", {"a": 1, "b": 2}, session_id="s-1", user_id="ada")
    assert started["root_execution_id"] == started["execution_id"]
    assert (started["session_id"], started["user_id"]) == ("s-1", "ada")
    record = ended(shop, started["execution_id"])
    assert (record["status"], record["result"], record["session_id"]) == ("completed", 3, "s-1")


def test_an_id_may_hold_a_slash(shop: httpx.Client) -> None:
    assert ended(shop, start(shop, "team/greet", {"name": "Ada"})["execution_id"])["result"] == "Hello Ada"


def test_waiting_ends_with_its_time(shop: httpx.Client) -> None:
    started = start(shop, "linger", {"seconds": 30})
    began = time.monotonic()
    record = shop.get(f"{API}/executions/{started['execution_id']}", params={"wait": 0.3}).json()
    assert record["completed_at"] is None
    assert 0.25 < time.monotonic() - began < 10
    shop.post(f"{API}/executions/{started['execution_id']}/cancel")


def test_a_run_is_cancelled_once(shop: httpx.Client) -> None:
    path = f"{API}/executions/{start(shop, 'linger', {'seconds': 30})['execution_id']}"
    first, second = shop.post(f"{path}/cancel"), shop.post(f"{path}/cancel")
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (second.status_code, second.json()["error_type"]) == (400, "BAD_REQUEST")


def test_the_same_key_starts_one_run(shop: httpx.Client) -> None:
    key = str(uuid.uuid4())
    first = start(shop, "add", {"a": 1, "b": 1}, idempotency_key=key)
    header = {"Idempotency-Key": key}
    again = shop.post(f"{API}/workflows/add/run", json={"payload": {"a": 1, "b": 1}}, headers=header)
    assert again.json() == first


def test_the_same_key_with_another_input_is_a_conflict(shop: httpx.Client) -> None:
    key = str(uuid.uuid4())
    start(shop, "add", {"a": 1, "b": 1}, idempotency_key=key)
    other = shop.post(f"{API}/workflows/add/run", json={"payload": {"a": 2, "b": 1}, "idempotency_key": key})
    assert (other.status_code, other.json()["error_type"]) == (409, "CONFLICT")


def test_a_batch_is_started_in_order(shop: httpx.Client) -> None:
    items = [{"workflow_id": "add", "payload": {"a": number, "b": 0}} for number in range(3)]
    answer = shop.post(f"{API}/workflows/batch_run", json={"workflows": items, "session_id": "batch"})
    started = answer.json()["executions"]
    assert [ended(shop, each["execution_id"])["result"] for each in started] == [0, 1, 2]
    assert {each["session_id"] for each in started} == {"batch"}


def test_an_empty_batch_starts_nothing(shop: httpx.Client) -> None:
    assert shop.post(f"{API}/workflows/batch_run", json={"workflows": []}).json() == {"executions": []}


def test_a_payload_that_does_not_fit_fails_the_run(shop: httpx.Client) -> None:
    record = ended(shop, start(shop, "add", {"a": "many"})["execution_id"])
    assert record["status"] == "failed"
    assert record["error"]


def test_definitions_are_told_with_their_details(shop: httpx.Client) -> None:
    agent = shop.get(f"{API}/agents/parrot").json()
    assert (agent["model"], agent["system_prompt"]) == ("gpt-4o", "Repeat.")
    assert [tool["name"] for tool in agent["tools"]] == ["echo"]
    tool = shop.get(f"{API}/tools/echo").json()
    assert set(tool["parameters"]["properties"]) == {"a", "b"}
    assert shop.get(f"{API}/workflows/add").json()["description"] == "Adds two numbers"
    assert shop.get(f"{API}/workflows/team/greet").json()["workflow_id"] == "team/greet"


def test_lists_hold_each_kind_alone(shop: httpx.Client) -> None:
    assert [agent["id"] for agent in shop.get(f"{API}/agents").json()] == ["parrot"]
    assert [tool["id"] for tool in shop.get(f"{API}/tools").json()] == ["echo"]
    names = {each["workflow_id"] for each in shop.get(f"{API}/workflows").json()}
    assert names == {"add", "approve", "team/greet", "linger", "repeat"}


def test_the_fleet_is_seen(shop: httpx.Client) -> None:
    assert len(shop.get(f"{API}/workers/active").json()["worker_ids"]) == 1
    elsewhere = shop.get(f"{API}/workers/status", params={"deployment_id": "v2"}).json()
    assert elsewhere == {"online_count": 0, "has_workers": False}
    assert shop.get(f"{API}/deployments/default").json()["status"] == "active"


def test_runs_are_listed_page_by_page_without_gap_or_double(server: Stand) -> None:
    client, _ = server.of_new_project()  # nobody executes these
    created = [start(client, "add", {"n": number})["execution_id"] for number in range(5)]
    seen, cursor = [], None
    while True:
        page = client.get(
            f"{API}/workflows/runs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        seen += [run["id"] for run in page.json()]
        if (cursor := page.headers.get("X-Next-Cursor")) is None:
            break
    assert seen == created[::-1]
    by_offset = client.get(f"{API}/workflows/runs", params={"limit": 2, "offset": 2}).json()
    assert [run["id"] for run in by_offset] == created[::-1][2:4]


def test_large_values_are_left_out_of_lists(server: Stand) -> None:
    client, _ = server.of_new_project()
    start(client, "add", {"text": "x" * 100_000})
    [run] = client.get(f"{API}/workflows/runs").json()
    assert (run["payload"], run["omitted"]) == (None, ["payload"])
