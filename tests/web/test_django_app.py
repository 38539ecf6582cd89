"""The Django example under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from scripts import wait_until
from told_model import ToldModel
from web_app import LITELLM_NEEDS, WebApp, all_frames, needs_proc, text_of, until_text, web_app

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


def start(visitor: httpx.Client, text: str) -> str:
    response = visitor.post("/chat", json={"text": text})
    assert response.status_code == 202, response.text
    return response.json()["run_id"]


def test_a_tool_asks_djangos_database_in_a_worker(visitor: httpx.Client, model: ToldModel) -> None:
    model.says("", ("find_order", {"number": "A-17"}))
    model.says("It was sent on Monday.")
    run_id = start(visitor, "Where is order A-17?")

    seen = all_frames(visitor, f"/chat/{run_id}/events")

    [result] = [frame.data["result"] for frame in seen if frame.kind == "tool_result"]
    assert result == "sent on Monday"
    assert visitor.get(f"/chat/{run_id}").json()["answer"] == "It was sent on Monday."


def test_a_broken_stream_goes_on_after_the_last_event(visitor: httpx.Client, model: ToldModel) -> None:
    speech = model.says("one two three four", held=True)
    path = f"/chat/{start(visitor, 'count')}/events"
    speech.allow(2)

    before = until_text(visitor, path, "one two ")
    speech.finish()
    after = all_frames(visitor, path, after=before[-1].id)

    assert text_of([*before, *after]) == "one two three four"
    assert after[-1].kind == "agent_finish"


def test_a_run_can_be_cancelled(visitor: httpx.Client, model: ToldModel) -> None:
    speech = model.says("never said", held=True)
    run_id = start(visitor, "go on")
    wait_until(speech.begun.is_set, seconds=60)

    assert visitor.post(f"/chat/{run_id}/cancel").json() == {"cancelled": True}
    assert all_frames(visitor, f"/chat/{run_id}/events")[-1].kind == "agent_cancel"
    assert visitor.get(f"/chat/{run_id}").json()["status"] == "cancelled"


def test_what_cannot_be_is_refused(app: WebApp, visitor: httpx.Client, model: ToldModel) -> None:
    model.says("Hello.")
    run_id = start(visitor, "hello")
    all_frames(visitor, f"/chat/{run_id}/events")

    assert visitor.post("/chat", json=["text"]).status_code == 400
    assert visitor.post("/chat", data={"text": "a form"}).status_code == 400
    assert visitor.get("/chat").status_code == 405
    assert visitor.get("/chat/nothing/events").status_code == 404
    with app.visitor() as stranger:
        assert stranger.get(f"/chat/{run_id}/events").status_code == 404
    [refused] = all_frames(visitor, f"/chat/{run_id}/events", after="nonsense")
    assert refused.kind == "refused"


@needs_proc
def test_the_web_process_loads_no_model_libraries(app: WebApp) -> None:
    wait_until(lambda: app.loaded(app.workers[0], LITELLM_NEEDS), seconds=60)

    assert not app.loaded(app.server, LITELLM_NEEDS)
