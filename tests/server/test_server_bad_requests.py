"""Requests that are wrong: each gets a status that fits and a JSON error that says what to do."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from stand import API, Stand

from polos.server import create_app
from polos.settings import Settings

RUN = f"{API}/workflows/flow/run"
JSON = {"Content-Type": "application/json"}


def refused(answer: httpx.Response, status: int, kind: str) -> str:
    """Check an error's status and shape; return what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    problem = answer.json()
    assert set(problem) == {"error", "error_type"}
    assert problem["error_type"] == kind
    assert problem["error"]
    return str(problem["error"])


@pytest.mark.parametrize("path", ["/", "/api/v1/nothing", "/api/v1/executions", "/api/v2/agents", "/%00"])
def test_what_is_not_there_is_not_found(shop: httpx.Client, path: str) -> None:
    refused(shop.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_a_method_that_is_none_is_told(shop: httpx.Client, method: str) -> None:
    refused(shop.request(method, f"{API}/executions/x/cancel"), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "execution_id", ["x", "0" * 36, "00000000-0000-0000-0000-000000000000", "%27%20OR%201=1", "a%0Ab", "é"]
)
def test_an_id_that_is_none_is_not_found(shop: httpx.Client, execution_id: str) -> None:
    path = f"{API}/executions/{execution_id}"
    refused(shop.get(path), 404, "NOT_FOUND")
    refused(shop.get(path, params={"wait": 5}), 404, "NOT_FOUND")
    refused(shop.post(f"{path}/cancel"), 404, "NOT_FOUND")
    refused(shop.get(f"{API}/sessions/{execution_id}"), 404, "NOT_FOUND")
    refused(shop.get(f"{API}/events/stream?workflow_run_id={execution_id}"), 404, "NOT_FOUND")


def test_nul_is_refused_wherever_it_stands(shop: httpx.Client) -> None:
    for path in ("executions/a%00b", "workflows/runs?session_id=%00", "events?topic=%00", "agents/%00"):
        refused(shop.get(f"{API}/{path}"), 400, "BAD_REQUEST")


BODIES: dict[str, Any] = {
    "no JSON": "{",
    "no object": "[]",
    "nothing": "",
    "no number": '{"payload": NaN}',
    "half a surrogate pair": '{"user_id": "\\ud800"}',
    "NUL": '{"session_id": "\\u0000"}',
    "wrong type": '{"session_id": 3}',
    "empty label": '{"queue_name": ""}',
    "long label": json.dumps({"user_id": "x" * 401}),
    "no time": '{"run_timeout_seconds": -1}',
    "endless time": '{"run_timeout_seconds": Infinity}',
    "a child": '{"parent_execution_id": "x"}',
    "too deep": '{"payload": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "no UTF-8": b'{"payload": "\xff"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_none_is_refused(shop: httpx.Client, body: str | bytes) -> None:
    refused(shop.post(RUN, content=body, headers=JSON), 400, "BAD_REQUEST")


def test_any_text_in_a_payload_comes_back_as_it_was(shop: httpx.Client) -> None:
    text = "NUL \x00, half a pair \ud800, a line end \u2028"
    body = json.dumps({"payload": text, "session_id": "odd"})
    run = shop.post(RUN, content=body, headers=JSON).json()
    assert shop.get(f"{API}/executions/{run['execution_id']}").json()["payload"] == text
    [listed] = shop.get(f"{API}/workflows/runs", params={"session_id": "odd"}).json()
    assert listed["payload"] == text


def test_a_deep_payload_is_taken_or_refused(shop: httpx.Client) -> None:
    for depth in (100, 300, 500, 700, 900, 1100, 3000):
        body = '{"payload": ' + "[" * depth + "]" * depth + "}"
        assert shop.post(RUN, content=body, headers=JSON).status_code in {200, 400}, depth


def test_a_body_of_another_type_is_refused(shop: httpx.Client) -> None:
    """Pages of other sites can send plain text without asking first."""
    refused(shop.post(RUN, content="{}", headers={"Content-Type": "text/plain"}), 400, "BAD_REQUEST")


def test_a_large_body_is_refused_by_its_announced_size(server: Stand, shop: httpx.Client) -> None:
    body = b'{"payload": "' + b"x" * server.settings.max_request_bytes + b'"}'
    refused(shop.post(RUN, content=body, headers=JSON), 413, "PAYLOAD_TOO_LARGE")


def test_a_large_body_is_refused_while_it_comes(server: Stand, shop: httpx.Client) -> None:
    pieces = (b"x" * 100_000 for _ in range(server.settings.max_request_bytes // 100_000 + 2))
    refused(shop.post(RUN, content=pieces, headers=JSON), 413, "PAYLOAD_TOO_LARGE")


def test_a_value_that_is_too_large_to_keep_is_refused(server: Stand, shop: httpx.Client) -> None:
    body = {"payload": "x" * (server.settings.max_value_bytes + 1)}
    assert "POLOS_MAX_VALUE_BYTES" in refused(shop.post(RUN, json=body), 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "offset=-1",
        "offset=10001",
        "status=none",
        "start_time=yesterday",
        "cursor=x",
        "cursor=AAAA",
        "cursor=" + "A" * 59,
        "roots_only=perhaps",
    ],
)
def test_a_query_that_is_none_is_refused(shop: httpx.Client, query: str) -> None:
    refused(shop.get(f"{API}/workflows/runs?{query}"), 400, "BAD_REQUEST")


def test_a_sequence_id_beyond_all_others_is_followed_by_nothing(shop: httpx.Client) -> None:
    query = {"topic": "news", "last_sequence_id": 2**62}
    assert shop.get(f"{API}/events", params=query).json()["events"] == []


def test_several_projects_are_refused(shop: httpx.Client) -> None:
    headers = {"X-Project-ID": "shop", "Project-ID": "other"}
    refused(shop.get(f"{API}/projects", headers=headers), 400, "BAD_REQUEST")


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "Bearer sk_", "sk_x", "Bearer sk_é"])
def test_a_key_that_is_none_is_refused(server: Stand, header: str) -> None:
    answer = server.client().get(f"{API}/projects", headers={"Authorization": header.encode()})
    refused(answer, 401, "UNAUTHORIZED")


# -- whatever the OpenAPI document allows, and what it does not

DOCUMENT = create_app(Settings()).openapi()
# A stream lasts; it has tests of its own.
CHECKED = [
    (mode, method.upper(), path)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for mode in ("positive", "negative")
    if not path.endswith("/events/stream")
    if mode == "positive" or operation.keys() & {"parameters", "requestBody"}
]
CASES = 6


def test_the_document_is_served_to_everybody(server: Stand) -> None:
    answer = server.client().get("/api-docs/openapi.json")
    assert answer.json()["paths"].keys() == DOCUMENT["paths"].keys()
    assert "swagger" in server.client().get("/docs").text.lower()


@pytest.mark.parametrize(("mode", "method", "path"), CHECKED)
def test_no_request_breaks_the_server(
    server: Stand, mode: str, method: str, path: str, admin_key: str
) -> None:
    """schemathesis makes requests that fit the document, and some that do not."""
    # Here, for it takes a second to import, in each process of the tests.
    import schemathesis
    from hypothesis import HealthCheck, Phase, given
    from hypothesis import settings as hypothesis_settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    document = schemathesis.openapi.from_dict(DOCUMENT)
    generation = schemathesis.GenerationMode(mode)
    document.config.generation.update(modes=[generation])
    strategy = document[path][method].as_strategy(generation_mode=generation)

    @hypothesis_settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        if case.query and "wait" in case.query:
            case.query["wait"] = 0.01
        case.call_and_validate(
            base_url=server.url,
            headers={"Authorization": f"Bearer {admin_key}"},
            checks=[
                not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_schema_conformance,
            ],
        )

    given(case=strategy)(check)()


@pytest.fixture(scope="module")
def admin_key(server: Stand) -> str:
    return server.key("fuzzed", admin=True)
