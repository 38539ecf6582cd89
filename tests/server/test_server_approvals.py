"""Questions of runs, answered over HTTP: with a key, or by the link that is in the question."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from stand import API, Stand, wait_until

from polos.approval_links import ApprovalRight
from polos.client import PolosClient
from polos.errors import AnswerError

pytestmark = pytest.mark.usefixtures("worker")


def asking(shop: httpx.Client, key: str = "go ahead/now") -> tuple[str, str]:
    """Start a run that asks; return its id and the path of its question."""
    body = {"payload": {"key": key}}
    run_id = shop.post(f"{API}/workflows/approve/run", json=body).json()["execution_id"]
    path = f"{API}/approvals/{run_id}/{quote(key)}"
    wait_until(lambda: shop.get(path).status_code == 200)
    return run_id, path


def result(shop: httpx.Client, run_id: str) -> object:
    return shop.get(f"{API}/executions/{run_id}", params={"wait": "20"}).json()["result"]


def token_of(question: httpx.Response) -> str:
    [token] = parse_qs(urlsplit(question.json()["data"]["_approval_url"]).query)["token"]
    return token


def test_a_question_is_shown_and_answered_once(shop: httpx.Client) -> None:
    run_id, path = asking(shop)
    question = shop.get(path).json()
    assert (question["status"], question["answer"]) == ("waiting", None)
    assert question["data"]["_form"] == {"title": "Deploy?"}
    answered = shop.post(f"{path}/submit", json={"data": {"approved": True}})
    assert (answered.status_code, answered.json()["status"]) == (200, "resolved")
    again = shop.post(f"{path}/submit", json={"data": {"approved": False}})
    assert (again.status_code, again.json()["error_type"]) == (409, "CONFLICT")
    assert result(shop, run_id) == {"approved": True}
    assert shop.get(path).json()["answer"] == {"approved": True}


def test_a_run_is_resumed_as_code_does_it(shop: httpx.Client) -> None:
    run_id, _ = asking(shop, "plain")
    body = {"step_key": "plain", "data": {"approved": True}}
    assert shop.post(f"{API}/executions/{run_id}/resume", json=body).status_code == 200
    assert result(shop, run_id) == {"approved": True}
    assert shop.post(f"{API}/executions/{run_id}/resume", json=body).status_code == 409


async def test_a_client_resumes_over_http(server: Stand, shop: httpx.Client) -> None:
    run_id, _ = asking(shop, "remote")
    key = shop.headers["Authorization"].removeprefix("Bearer ")
    async with PolosClient(api_url=server.url, api_key=key) as client:
        for data in ({"approved": True}, {"approved": False}):
            await client.resume("approve", run_id, "remote", data)
        assert (await client.wait(run_id, timeout_seconds=20))["result"] == {"approved": True}
        with pytest.raises(ValueError, match="no run"):
            await client.resume("approve", "5a0f6f6e-0000-0000-0000-000000000000", "remote", {})


def test_the_link_of_a_question_answers_it_and_nothing_else(server: Stand, shop: httpx.Client) -> None:
    run_id, path = asking(shop, "linked")
    _, other = asking(shop, "other")
    token = {"token": token_of(shop.get(path))}
    nobody = server.client()
    assert nobody.get(path).status_code == 401
    assert nobody.get(path, params=token).json()["data"]["_form"] == {"title": "Deploy?"}
    for method, elsewhere in (
        ("GET", other),
        ("GET", f"{API}/executions/{run_id}"),
        ("GET", f"{API}/agents"),
    ):
        assert nobody.request(method, elsewhere, params=token).status_code in {401, 403}
    assert nobody.post(f"{other}/submit", params=token, json={"data": {}}).status_code == 403
    answered = nobody.post(f"{path}/submit", params=token, json={"data": {"approved": True}})
    assert answered.status_code == 200
    assert result(shop, run_id) == {"approved": True}


def test_links_that_are_forged_or_too_old_are_refused(server: Stand, shop: httpx.Client) -> None:
    run_id, path = asking(shop, "secured")
    nobody = server.client()
    forged = ApprovalRight("shop", run_id, "secured", time.time() + 60).token("another secret")
    old = ApprovalRight("shop", run_id, "secured", time.time() - 1).token(server.settings.approval_secret)
    for token in (forged, old, "", "x", "x.y", "ü.ü", token_of(shop.get(path)) + "0"):
        refused = nobody.post(f"{path}/submit", params={"token": token}, json={"data": {}})
        assert refused.status_code == 401
    assert shop.get(path).json()["status"] == "waiting"


def test_what_is_not_asked_cannot_be_answered(shop: httpx.Client) -> None:
    run_id, _ = asking(shop, "asked")
    for path in (f"{run_id}/another", "5a0f6f6e-0000-0000-0000-000000000000/asked", "x/asked"):
        assert shop.get(f"{API}/approvals/{path}").status_code == 404
    for path in ("5a0f6f6e-0000-0000-0000-000000000000/asked", "x/asked"):
        assert shop.post(f"{API}/approvals/{path}/submit", json={"data": {}}).status_code == 404
    for body in ({}, {"data": 1}, {"data": None}, []):
        assert shop.post(f"{API}/approvals/{run_id}/asked/submit", json=body).status_code == 400


def test_an_answer_before_the_question_is_kept_for_it(shop: httpx.Client) -> None:
    body = {"payload": {"key": "early", "pause": "1"}}
    run_id = shop.post(f"{API}/workflows/approve/run", json=body).json()["execution_id"]
    resume = {"step_key": "early", "data": {"approved": True}}
    kept = shop.post(f"{API}/executions/{run_id}/resume", json=resume)
    assert (kept.status_code, kept.json()["status"]) == (202, "kept")
    assert shop.post(f"{API}/executions/{run_id}/resume", json=resume).status_code == 409
    assert result(shop, run_id) == {"approved": True}


def test_a_run_that_is_none_cannot_be_answered(shop: httpx.Client) -> None:
    body = {"step_key": "early", "data": {}}
    assert shop.post(f"{API}/executions/nowhere/resume", json=body).status_code == 404


def test_open_questions_are_listed(server: Stand, shop: httpx.Client) -> None:
    run_id, path = asking(shop, "listed")
    mine = [one for one in shop.get(f"{API}/approvals").json() if one["execution_id"] == run_id]
    assert [(one["step_key"], one["workflow_id"], one["suspended_execution_id"]) for one in mine] == [
        ("listed", "approve", run_id)
    ]
    assert mine[0]["data"]["_form"] == {"title": "Deploy?"}
    [same] = shop.get(f"{API}/approvals", params={"session_id": mine[0]["session_id"]}).json()
    assert same == mine[0]
    stranger, _ = server.of_new_project()
    assert stranger.get(f"{API}/approvals").json() == []
    token = {"token": token_of(shop.get(path))}
    assert server.client().get(f"{API}/approvals", params=token).status_code == 401
    shop.post(f"{path}/submit", json={"data": {"approved": True}})
    assert run_id not in {one["execution_id"] for one in shop.get(f"{API}/approvals").json()}


def test_an_answer_is_checked_against_its_form_and_signed(server: Stand, shop: httpx.Client) -> None:
    fields = '[{"key": "count", "type": "number", "label": "How many", "required": true}]'
    body = {"payload": {"key": "counted", "fields": fields}}
    run_id = shop.post(f"{API}/workflows/approve/run", json=body).json()["execution_id"]
    path = f"{API}/approvals/{run_id}/counted"
    wait_until(lambda: shop.get(path).status_code == 200)
    problem = "The answer to 'counted' lacks a field 'count' (How many), which is required"
    refused = shop.post(f"{path}/submit", json={"data": {}})
    assert (refused.status_code, refused.json()) == (422, {"error": problem, "error_type": "UNPROCESSABLE"})
    key = shop.headers["Authorization"].removeprefix("Bearer ")
    with PolosClient(api_url=server.url, api_key=key).sync as client:
        with pytest.raises(AnswerError, match="lacks a field 'count'"):
            client.resume("approve", run_id, "counted", {})
        client.resume("approve", run_id, "counted", {"count": "2"}, answered_by="Grace")
    found = shop.get(path).json()
    assert (found["answer"], found["answered_by"]) == ({"count": 2}, "Grace")

    _, unsigned = asking(shop, "unsigned")
    answered = shop.post(f"{unsigned}/submit", json={"data": {"approved": True}}).json()
    assert answered["answered_by"] == "test"  # what the key was called
