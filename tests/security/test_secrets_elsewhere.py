"""Servers that repeat the secrets they are sent, and Flower, which shows what workers tell."""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nursery
import pytest
import redis
from crowd import Crowd, crowd_in, wait_until
from models.servers import Answer, Recorder, Seen, recorder
from sealed import raw_rows
from secured import MODELS, SERVERS

from polos.journal.database import Database

CANARY = "canary7d1e"  # of every secret here, and of nothing else
KEY = f"{CANARY}0123456789abcdef"  # no form that could be known
TOKEN = f"{CANARY}/token+0123456789"
PASSWORD = f"{CANARY}password"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY")
pytestmark = pytest.mark.timeout(180)


def _tells_all(seen: Seen) -> Answer:
    """Refuse, and repeat all that was sent, as words and as they are."""
    sent = seen.headers.get("authorization", "") + seen.headers.get("x-api-key", "")
    words = f"Incorrect API key provided: {sent.removeprefix('Bearer ')} ({seen.path}, {seen.headers})"
    return Answer({"error": {"message": words, "code": "invalid_api_key", "headers": seen.headers}}, 401)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Recorder]:
    with recorder() as record:
        record.answer = _tells_all
        yield record


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, valkey_url: str, elsewhere: Recorder) -> Iterator[Crowd]:
    """A worker that sends secrets to a server that repeats them, over a broker with a password."""
    with redis.Redis.from_url(f"{valkey_url}/14") as admin:
        admin.execute_command("ACL", "SETUSER", "flower", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    settings = {
        "POLOS_BROKER_URL": f"{valkey_url}/14".replace("redis://", f"redis://flower:{PASSWORD}@"),
        "ELSEWHERE": elsewhere.url,
        "MCP_TOKEN": TOKEN,
        **dict.fromkeys(KEYS, KEY),
    }
    with crowd_in(tmp_path_factory.mktemp("told"), valkey_url, **settings) as crowd:
        yield crowd


def is_clean(text: str) -> bool:
    return CANARY not in text


def ends_clean(crowd: Crowd, agent: str, *, streaming: bool = False) -> str:
    """Run an agent that fails; return its error, once all that was told of it has been searched."""
    events = crowd.broker.pubsub()
    events.psubscribe("*")
    wait_until(lambda: events.get_message(timeout=1))
    run_id = crowd.client.invoke(agent, {"input": "Hello", "streaming": streaming}).id
    read = [json.dumps(event.data) for event in crowd.client.follow(run_id)]
    wait_until(lambda: crowd.run(run_id)["finished_at"])
    run = crowd.run(run_id)
    assert run["status"] == "failed"
    payloads = []
    while message := events.get_message(timeout=0.3):
        payloads.append(_decoded(message.get("data")))
    assert any("task-" in each for each in payloads), "no events of Celery's, which Flower shows"
    rows = raw_rows(Database(crowd.environment["POLOS_DATABASE_URL"]))
    assert [row for row in rows if not is_clean(row[2])] == []
    assert is_clean(crowd.log), [line for line in crowd.log.splitlines() if not is_clean(line)][:3]
    assert [each for each in (*payloads, *read) if not is_clean(each)] == []
    return str(run["error"])


def _decoded(data: object) -> str:
    text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
    bodies = re.findall(r'"body": ?"([A-Za-z0-9+/=]+)"', text)
    return text + "".join(base64.b64decode(body).decode(errors="replace") for body in bodies)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("provider", MODELS)
def test_a_provider_that_repeats_its_key_is_quoted_without_it(
    told: Crowd, elsewhere: Recorder, provider: str, streaming: bool
) -> None:
    before = len(elsewhere.seen)
    error = ends_clean(told, f"keyed-{provider}", streaming=streaming)
    assert "401" in error
    assert any(KEY in str(seen.headers) for seen in elsewhere.seen[before:]), "the key was not sent"


@pytest.mark.parametrize("server", SERVERS)
def test_an_mcp_server_that_repeats_its_token_is_quoted_without_it(
    told: Crowd, elsewhere: Recorder, server: str
) -> None:
    before = len(elsewhere.seen)
    error = ends_clean(told, f"served-{server}")
    assert server in error
    if server in {"header", "own", "url"}:
        assert any(TOKEN in f"{seen.path} {seen.headers}" for seen in elsewhere.seen[before:])


# -- Flower


PAGES = (
    "",
    "workers",
    "tasks",
    "broker",
    "metrics",
    "api/workers?refresh=1",
    "api/tasks",
    "api/queues/length",
)


def test_flower_shows_no_secret(told: Crowd) -> None:
    """With its pages, and all that its API tells, of a worker and runs that are full of them."""
    with flower(told) as page:
        wait_until(lambda: "@" in page("api/workers?refresh=1"), seconds=60)
        runs = [told.client.invoke("pay", {"to": f"{CANARY} {n}"}).id for n in range(2)]
        for run_id in runs:
            wait_until(lambda run_id=run_id: told.run(run_id)["finished_at"])
        failed = told.client.invoke("raises", {"place": "body", "text": f"redis://:{PASSWORD}@h/1 is away"})
        wait_until(lambda: told.run(failed.id)["finished_at"])
        wait_until(lambda: all(run in page("api/tasks") for run in (*runs, failed.id)), seconds=60)
        tasks = list(json.loads(page("api/tasks")))
        [worker] = json.loads(page("api/workers?refresh=1"))
        shown = {path: page(path) for path in (*PAGES, f"worker/{worker}", *(f"task/{id}" for id in tasks))}
    assert "pay" in shown["tasks"] + shown["api/tasks"]
    assert worker in shown["workers"]
    assert "broker_url" in shown[f"worker/{worker}"]
    assert [path for path, text in shown.items() if not is_clean(text)] == []


@contextmanager
def flower(crowd: Crowd) -> Iterator[object]:
    """Run Flower as the documentation says; give what fetches one of its pages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "polos.cli.main", "flower", "--port", str(port)]
    environment = {**crowd.environment, "FLOWER_UNAUTHENTICATED_API": "true"}
    with (crowd.folder / "flower.log").open("w") as log:
        process = nursery.start(command, cwd=crowd.folder, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def page(path: str) -> str:
                answer = client.get(f"/{path}")
                assert answer.status_code == 200, (path, answer.status_code)
                return answer.text

            def is_up() -> bool:
                try:
                    return client.get("/workers").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_up, seconds=60)
            yield page
    finally:
        process.terminate()
        process.wait(20)
    assert is_clean(Path(log.name).read_text())
