"""The Django example under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from scripts import wait_until
from told_model import ToldModel
from web_app import (
    LITELLM_NEEDS,
    WebApp,
    all_frames,
    check_a_broken_stream_goes_on,
    check_a_run_can_be_cancelled,
    check_a_run_is_its_visitors_own,
    needs_proc,
    start_run,
    web_app,
)

pytest.importorskip("django", reason="needs django: pip install 'polos[test]'")
pytestmark = pytest.mark.timeout(180)

MIGRATE = "python manage.py migrate"
WORKER = "python manage.py polosworker --loglevel info"
SERVER = "uvicorn --lifespan off --timeout-graceful-shutdown 2 shop.asgi:application"


@pytest.fixture(scope="module")
def app(model: ToldModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebApp]:
    database = tmp_path_factory.mktemp("django") / "shop.db"
    with web_app("django_app", {**model.environment, "DJANGO_DATABASE": str(database)}) as app:
        app.run(MIGRATE).ends()
        app.start(SERVER, WORKER)
        yield app


@pytest.fixture
def visitor(app: WebApp) -> Iterator[httpx.Client]:
    with app.visitor() as client:
        yield client


def test_a_tool_asks_djangos_database_in_a_worker(visitor: httpx.Client, model: ToldModel) -> None:
    model.says("", ("find_order", {"number": "A-17"}))
    model.says("It was sent on Monday.")
    run = start_run(visitor, "/chat", "Where is order A-17?")

    seen = all_frames(visitor, f"{run}/events")

    [result] = [frame.data["result"] for frame in seen if frame.kind == "tool_result"]
    assert result == "sent on Monday"
    assert visitor.get(run).json()["answer"] == "It was sent on Monday."


def test_a_broken_stream_goes_on_after_the_last_event(visitor: httpx.Client, model: ToldModel) -> None:
    check_a_broken_stream_goes_on(visitor, model, "/chat")


def test_a_run_can_be_cancelled(visitor: httpx.Client, model: ToldModel) -> None:
    check_a_run_can_be_cancelled(visitor, model, "/chat")


def test_a_run_is_its_visitors_own(app: WebApp, visitor: httpx.Client, model: ToldModel) -> None:
    check_a_run_is_its_visitors_own(app, visitor, model, "/chat")


def test_what_cannot_be_is_refused(visitor: httpx.Client) -> None:
    assert visitor.post("/chat", json=["text"]).status_code == 400
    assert visitor.post("/chat", data={"text": "a form"}).status_code == 400
    assert visitor.get("/chat").status_code == 405


@needs_proc
def test_the_web_process_loads_no_model_libraries(app: WebApp) -> None:
    wait_until(lambda: app.loaded(app.workers[0], LITELLM_NEEDS), seconds=60)

    assert not app.loaded(app.server, LITELLM_NEEDS)
