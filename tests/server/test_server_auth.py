"""Who is let in, to what: every endpoint of the OpenAPI document, those that are added later included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cli.written import Written
from stand import API, Stand, stand

from polos.journal.database import Database
from polos.server import create_app
from polos.settings import Settings

OPERATIONS = [
    (method.upper(), path)
    for path, operations in create_app(Settings()).openapi()["paths"].items()
    for method in operations
]
GUARDED = [(method, path) for method, path in OPERATIONS if path not in {"/health", "/ready"}]
SECRETS = (
    "agent-of-another",
    "worker-of-another",
    "run-of-another",
    "session-of-another",
    "key-of-another",
    "topic-of-another",
)


def call(client: httpx.Client, method: str, path: str, **ids: str) -> httpx.Response:
    """Call an endpoint with these ids in path, query and body, wherever it takes them."""
    given = {"execution_id": "x", "workflow_id": "flow", "project_id": "shop", **ids}
    url = re.sub(r"\{(\w+)(:path)?\}", lambda found: given.get(found[1], "x"), path)
    query = {"wait": "0.01", "workflow_run_id": given["execution_id"], "topic": given.get("topic", "t")}
    if path.endswith("/stream") or method == "GET":
        return client.request(method, url, params=query)
    return client.request(method, url, json=body_for(path, given))


def body_for(path: str, given: dict[str, str]) -> dict[str, Any]:
    if path.endswith("/batch_run"):
        return {"workflows": [{"workflow_id": "flow"}]}
    if path.endswith(("/submit", "/resume")):
        return {"data": {}, "step_key": "x"}
    if path.endswith("/publish"):
        return {"topic": "t", "events": [{"data": {}}]}
    return {"name": "n", "project_id": given["project_id"]}


@pytest.fixture(scope="module")
def theirs(server: Stand) -> dict[str, str]:
    """What another project has: a run of an agent, a session, a worker, a key, an event."""
    project = "another"
    client = server.client(server.key(project, admin=True))
    written = Written(Database(server.settings.database_url))
    run = written.run(
        "agent-of-another",
        kind="agent",
        project=project,
        input='{"input":"run-of-another"}',
        session_id="session-of-another",
    )
    written.worker("worker-of-another", ("agent", "agent-of-another"), project=project, deployment="theirs")
    written.close()
    key = client.post(f"{API}/api-keys", json={"name": "key-of-another", "project_id": project})
    published = {"topic": "topic-of-another", "events": [{"data": {"secret": "topic-of-another"}}]}
    client.post(f"{API}/events/publish", json=published)
    return {
        "execution_id": run,
        "agent_id": "agent-of-another",
        "deployment_id": "theirs",
        "key_id": key.json()["id"],
        "project_id": project,
        "topic": "topic-of-another",
    }


def test_the_document_has_the_endpoints() -> None:
    assert len(GUARDED) > 20


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_nobody_enters_without_a_live_key(server: Stand, method: str, path: str) -> None:
    unknown = "sk_" + "0" * 32
    for secret in (None, unknown, server.revoked_key("shop")):
        answer = call(server.client(secret), method, path)
        assert answer.status_code == 401, (secret, answer.text)
        assert answer.json()["error_type"] == "UNAUTHORIZED"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_key_opens_no_other_project(server: Stand, method: str, path: str, shop: httpx.Client) -> None:
    for header in ("X-Project-ID", "Project-ID"):
        client = server.client(shop.headers["Authorization"].split()[1], **{header: "another"})
        assert call(client, method, path).status_code == 403
    url = path.replace("{", "").replace("}", "").replace(":path", "")
    assert shop.request(method, url, params={"project_id": "another"}).status_code == 403


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_nothing_of_another_project_is_seen_or_changed(
    server: Stand, shop: httpx.Client, theirs: dict[str, str], method: str, path: str
) -> None:
    own = {"project_id": "shop"} if path.endswith("/api-keys") else {}
    client = server.client(server.key("shop", admin=True)) if "key" in path else shop
    if path.endswith("/events/stream"):
        answer = client.get(path, params={"workflow_run_id": theirs["execution_id"]})
        assert answer.status_code == 404
    else:
        answer = call(client, method, path, **{**theirs, **own})
    text = answer.text
    for asked in theirs.values():
        text = text.replace(f"'{asked}'", "")  # a 404 repeats what was asked for
    assert not any(secret in text for secret in SECRETS), answer.text
    assert theirs["execution_id"] not in text
    if re.search(r"\{(execution|key|agent|deployment)_id", path):
        assert answer.status_code == 404
    elsewhere = server.client(server.key("another", admin=True))
    run = elsewhere.get(f"{API}/executions/{theirs['execution_id']}").json()
    assert run["status"] == "queued"
    keys = elsewhere.get(f"{API}/api-keys/project/another").json()["api_keys"]
    assert theirs["key_id"] in {key["id"] for key in keys}
    for key in keys:
        if key["name"] == "test" and key["last_used_at"]:
            elsewhere.delete(f"{API}/api-keys/{key['id']}")


def test_keys_are_managed_by_admins_of_their_project_only(server: Stand) -> None:
    plain, project = server.of_new_project()
    admin = server.client(server.key(project, admin=True))
    wanted = {"name": "web", "project_id": project}
    assert plain.post(f"{API}/api-keys", json=wanted).status_code == 403
    made = admin.post(f"{API}/api-keys", json=wanted).json()
    assert re.fullmatch(r"sk_[A-Za-z0-9]{32}", made["key"])
    assert made["last_four_digits"] == made["key"][-4:]
    web = server.client(made["key"])
    assert web.get(f"{API}/projects").json()["projects"][0]["id"] == project
    assert admin.delete(f"{API}/api-keys/{made['id']}").status_code == 204
    assert web.get(f"{API}/projects").status_code == 401


def test_a_project_has_ten_keys_at_most(server: Stand) -> None:
    admin, project = server.of_new_project(admin=True)
    answers = [
        admin.post(f"{API}/api-keys", json={"name": f"key {n}", "project_id": project}) for n in range(10)
    ]
    assert [answer.status_code for answer in answers] == [200] * 9 + [409]


def test_the_last_use_of_a_key_is_kept(server: Stand) -> None:
    admin, project = server.of_new_project(admin=True)
    admin.get(f"{API}/projects")
    [key] = admin.get(f"{API}/api-keys/project/{project}").json()["api_keys"]
    assert key["last_used_at"] is not None


def test_requests_of_a_key_are_limited(settings: Settings) -> None:
    with stand(settings.with_values(requests_per_minute=5)) as limited:
        client, _ = limited.of_new_project()
        answers = [client.get(f"{API}/projects") for _ in range(14)]
        counts = [answer.status_code for answer in answers]
        assert set(counts) == {200, 429}
        assert counts.count(200) in {5, 9, 10}  # a minute may begin in between
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(refused.headers["Retry-After"]) <= 61
        other, _ = limited.of_new_project()
        assert other.get(f"{API}/projects").status_code == 200


# -- local mode


@pytest.fixture(scope="module")
def local(settings: Settings) -> Iterator[Stand]:
    with stand(settings.with_values(local_mode="true", project_id="mine")) as running:
        yield running


def test_local_mode_asks_for_no_key(local: Stand) -> None:
    assert local.client().get(f"{API}/projects").json()["projects"][0]["id"] == "mine"
    named = local.client(**{"X-Project-ID": "other"})
    assert named.get(f"{API}/projects").json()["projects"][0]["id"] == "other"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1", "[]"]
)
def test_local_mode_serves_no_other_name(local: Stand, host: str) -> None:
    """A page whose name was made to mean this machine sends its own name."""
    answer = local.client(Host=host).get(f"{API}/projects")
    assert answer.status_code in {400, 401}  # some are refused by the server before us


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"])
def test_local_mode_serves_the_names_of_this_machine(local: Stand, host: str) -> None:
    assert local.client(Host=host).get(f"{API}/projects").status_code == 200


def test_local_mode_serves_no_page_of_another_site(local: Stand) -> None:
    url = f"{API}/executions/x/cancel"
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        assert local.client(Origin=origin).post(url).status_code == 403
    assert local.client(Origin=local.url).post(url).status_code == 404


# -- pages of other sites


def test_no_page_of_another_site_may_read_by_default(server: Stand) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    answer = server.client(**preflight).options(f"{API}/agents")
    assert "access-control-allow-origin" not in answer.headers


def test_pages_that_are_named_may_read(settings: Settings) -> None:
    with stand(settings.with_values(cors_origins=("https://app.example",))) as running:
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
        allowed = running.client(**headers).options(f"{API}/agents")
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        headers["Origin"] = "https://evil.example"
        refused = running.client(**headers).options(f"{API}/agents")
        assert "access-control-allow-origin" not in refused.headers
