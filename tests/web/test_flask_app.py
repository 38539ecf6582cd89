"""The Flask example under gunicorn, with two forked processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from scripts import wait_until
from told_model import ToldModel
from web_app import (
    LITELLM_NEEDS,
    WebApp,
    check_a_broken_stream_goes_on,
    check_a_run_can_be_cancelled,
    check_a_run_is_its_visitors_own,
    needs_proc,
    web_app,
)

pytest.importorskip("flask", reason="needs flask: pip install 'polos[test]'")
pytest.importorskip("gunicorn", reason="needs gunicorn: pip install 'polos[test]'")
pytestmark = pytest.mark.timeout(180)

WORKER = "POLOS_IMPORTS=agents celery -A polos worker --loglevel info"
SERVER = "gunicorn --preload --workers 2 --threads 16 app:app"


@pytest.fixture(scope="module")
def app(model: ToldModel) -> Iterator[WebApp]:
    with web_app("flask_app", model.environment) as app:
        app.start(SERVER, WORKER)
        yield app


@pytest.fixture
def visitor(app: WebApp) -> Iterator[httpx.Client]:
    with app.visitor() as client:
        yield client


def test_a_sync_view_answers_in_its_request(visitor: httpx.Client, model: ToldModel) -> None:
    model.says("A message.")

    answer = visitor.post("/ask", json={"text": "What is a doorbell?"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["answer"] == "A message."
    assert visitor.get(f"/runs/{answer.json()['run_id']}").json()["status"] == "completed"


@needs_proc
def test_each_forked_process_connects_for_itself(app: WebApp, model: ToldModel) -> None:
    """The client was made before the fork. Requests come on connections of their own, from many threads."""
    count = 12
    for _ in range(count):
        model.says("Yes.")

    def ask(number: int) -> str:
        with app.visitor() as visitor:
            return visitor.post("/ask", json={"text": f"question {number}"}).json()["answer"]

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(ask, range(count)))

    assert answers == ["Yes."] * count
    wait_until(lambda: httpx.get(f"{app.url}/runs/none").status_code == 404 and len(connected(app)) == 2)


def connected(app: WebApp) -> list[int]:
    """Return the pids of gunicorn's processes that have the journal open."""
    return [pid for pid in app.server_pids()[1:] if any("polos.db" in name for name in open_files(pid))]


def open_files(pid: int) -> list[str]:
    return [os.path.realpath(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_broken_stream_goes_on_after_the_last_event(visitor: httpx.Client, model: ToldModel) -> None:
    check_a_broken_stream_goes_on(visitor, model, "/runs")


def test_a_run_can_be_cancelled(visitor: httpx.Client, model: ToldModel) -> None:
    check_a_run_can_be_cancelled(visitor, model, "/runs")


def test_a_run_is_its_visitors_own(app: WebApp, visitor: httpx.Client, model: ToldModel) -> None:
    check_a_run_is_its_visitors_own(app, visitor, model, "/runs")


def test_what_cannot_be_is_refused(visitor: httpx.Client) -> None:
    assert visitor.post("/ask", json={"text": 1}).status_code == 400
    assert visitor.post("/ask", content=b"text").status_code == 415


def test_the_model_says_nothing_and_the_view_says_so(visitor: httpx.Client, model: ToldModel) -> None:
    answer = visitor.post("/ask", json={"text": "hello"})

    assert answer.status_code == 502
    assert "nobody told the model" in answer.json()["error"]


@needs_proc
def test_the_web_processes_load_no_model_libraries(app: WebApp) -> None:
    wait_until(lambda: app.loaded(app.workers[0], LITELLM_NEEDS), seconds=60)

    assert not app.loaded(app.server, LITELLM_NEEDS)
