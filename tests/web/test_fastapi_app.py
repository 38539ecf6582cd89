"""The FastAPI example over HTTP, and its page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chat_page import ChatPage, chromium
from scripts import wait_until
from told_model import ToldModel
from web_app import LITELLM_NEEDS, WebApp, all_frames, needs_proc, text_of, until_text, web_app

pytest.importorskip("fastapi.sse", reason="needs fastapi 0.135 or newer")
pytest.importorskip("itsdangerous", reason="needs itsdangerous: pip install 'polos[test]'")
pytestmark = pytest.mark.timeout(180)

WORKER = "POLOS_IMPORTS=agents celery -A polos worker --loglevel info"
SERVER = "python app.py"
TURN_RECEIVED = "Task travel-agent.turn["  # a line of a worker's log, twice per turn


@pytest.fixture(scope="module")
def app(model: ToldModel) -> Iterator[WebApp]:
    with web_app("fastapi_app", model.environment) as app:
        app.start(SERVER, WORKER, WORKER)
        yield app


@pytest.fixture
def visitor(app: WebApp) -> Iterator[httpx.Client]:
    with app.visitor() as client:
        yield client


def ask(visitor: httpx.Client, text: str, after: str | None = None) -> str:
    response = visitor.post("/chat", json={"text": text, "after": after})
    assert response.status_code == 202, response.text
    return response.json()["run_id"]


def test_a_broken_stream_goes_on_after_the_last_event(visitor: httpx.Client, model: ToldModel) -> None:
    speech = model.says("one two three four", held=True)
    run_id = ask(visitor, "count")
    speech.allow(2)

    before = until_text(visitor, f"/chat/{run_id}/events", "one two ")
    speech.finish()
    after = all_frames(visitor, f"/chat/{run_id}/events", after=before[-1].id)

    assert text_of([*before, *after]) == "one two three four"
    assert after[-1].kind == "agent_finish"
    assert text_of(all_frames(visitor, f"/chat/{run_id}/events")) == "one two three four"


def test_a_conversation_goes_on_where_it_was(visitor: httpx.Client, model: ToldModel) -> None:
    model.says("Lisbon.")
    first = ask(visitor, "Where is it sunny?")
    all_frames(visitor, f"/chat/{first}/events")
    model.says("Because of the azores high.")
    second = ask(visitor, "Why?", after=first)
    all_frames(visitor, f"/chat/{second}/events")

    assert [message["content"] for message in model.asked[-1][1:]] == [
        "Where is it sunny?",
        "Lisbon.",
        "Why?",
    ]
    assert visitor.get(f"/chat/{second}").json() == {"run_id": second, "text": "Why?", "status": "completed"}


def test_a_run_of_another_visitor_does_not_exist(
    app: WebApp, visitor: httpx.Client, model: ToldModel
) -> None:
    model.says("A secret.")
    run_id = ask(visitor, "Tell me a secret")
    with app.visitor() as stranger:
        answers = [
            stranger.get(f"/chat/{run_id}"),
            stranger.get(f"/chat/{run_id}/events"),
            stranger.post(f"/chat/{run_id}/cancel"),
            stranger.post("/chat", json={"text": "go on", "after": run_id}),
        ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert text_of(all_frames(visitor, f"/chat/{run_id}/events")) == "A secret."


def test_what_cannot_be_is_refused(visitor: httpx.Client, model: ToldModel) -> None:
    model.says("Hello.")
    run_id = ask(visitor, "hello")
    all_frames(visitor, f"/chat/{run_id}/events")

    assert visitor.post("/chat", json={"text": ""}).status_code == 422
    assert (
        visitor.post("/chat", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    )
    assert visitor.get("/chat/nothing/events").status_code == 404
    [refused] = all_frames(visitor, f"/chat/{run_id}/events", after="nonsense")
    assert refused.kind == "refused"
    assert "'nonsense'" in refused.data["detail"]


@needs_proc
def test_the_web_process_loads_no_model_libraries(app: WebApp) -> None:
    wait_until(lambda: app.loaded(app.workers[0], LITELLM_NEEDS), seconds=60)

    assert not app.loaded(app.server, LITELLM_NEEDS)


def test_a_failed_answer_says_so(visitor: httpx.Client, model: ToldModel) -> None:
    """The model has nothing to say: it answers 400."""
    seen = all_frames(visitor, f"/chat/{ask(visitor, 'hello')}/events")

    assert "nobody told the model" in seen[-1].data["error"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def chat(browser: Any, app: WebApp) -> Iterator[ChatPage]:
    context = browser.new_context(viewport={"width": 1000, "height": 700}, color_scheme="light")
    page = ChatPage(context, app.url)
    yield page
    context.close()
    assert page.errors == []


def test_the_page_shows_text_and_tool_calls_as_they_come(chat: ChatPage, model: ToldModel) -> None:
    """By keyboard alone. What a model says is text, whatever it looks like."""
    looking = model.says("I look that up.", ("get_weather", {"city": "Lisbon"}), held=True)
    answer = model.says("<b>Lisbon</b> has 24 °C. <img src=x onerror=alert(1)>", held=True)
    chat.ask("Where is it warm?")
    looking.allow(2)
    chat.sees_text("I look ")
    looking.finish()
    answer.allow(3)
    chat.sees_text("I look that up.\n\nget_weather done\n\n<b>Lisbon</b> has 24 ")
    answer.finish()
    chat.is_done()
    tool = chat.exchange.locator("details")
    tool.locator("summary").press("Enter")
    chat.keep("tool-call")

    assert tool.locator(".arguments").inner_text() == '{\n  "city": "Lisbon"\n}'
    assert '"celsius": 24' in tool.locator(".result").inner_text()
    assert chat.exchange.locator(".answer b, .answer img").count() == 0
    assert chat.exchange.locator(".turn").last.inner_text().endswith("<img src=x onerror=alert(1)>")


def test_a_reload_in_the_middle_of_an_answer_loses_nothing(chat: ChatPage, model: ToldModel) -> None:
    model.says("Cairo.")
    chat.ask("Where is it hot?")
    chat.is_done()
    speech = model.says("Because it lies far in the south.", held=True)
    chat.ask("Why?")
    speech.allow(3)
    chat.sees_text("Because it lies ")

    chat.page.reload()
    chat.sees_text("Because it lies ")
    chat.keep("reloaded")
    speech.finish()
    chat.is_done()

    chat.sees_text("Because it lies far in the south.")
    assert chat.questions == ["Where is it hot?", "Why?"]
    assert model.asked[-1][-2]["content"] == "Cairo."


def test_the_end_of_an_answer_stays_in_view_until_its_reader_scrolls_up(
    chat: ChatPage, model: ToldModel
) -> None:
    speech = model.says("word " * 1000, held=True)
    chat.ask("Tell me a story")
    speech.allow(900)
    wait_until(lambda: len(chat.exchange.locator(".text").text_content()) == 4500)
    wait_until(lambda: chat.below_view() < 2)

    chat.page.evaluate("log.scrollBy(0, -600)")
    position = chat.page.evaluate("log.scrollTop")
    speech.finish()
    chat.is_done()

    assert chat.page.evaluate("log.scrollTop") == position


def test_an_answer_can_be_stopped(chat: ChatPage, model: ToldModel) -> None:
    model.says("This takes long.", held=True).allow(2)
    chat.ask("Tell me everything")
    chat.sees_text("This takes ")
    chat.page.get_by_role("button", name="Stop").click()
    chat.sees_status("Stopped.")
    chat.is_done()

    model.says("All is well.")
    chat.ask("And now?")
    chat.sees_text("All is well.")
    chat.is_done()


def test_a_failed_answer_is_told_and_the_chat_goes_on(chat: ChatPage, model: ToldModel) -> None:
    chat.ask("hello")
    chat.is_done()
    assert "nobody told the model" in chat.exchange.locator(".status").inner_text()
    chat.keep("failed")

    model.says("Hello.")
    chat.ask("hello?")
    chat.sees_text("Hello.")
    chat.is_done()


def test_the_page_fits_a_phone_in_the_dark(browser: Any, app: WebApp, model: ToldModel) -> None:
    phone = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme="dark", has_touch=True)
    chat = ChatPage(phone, app.url)
    model.says("", ("get_weather", {"city": "Llanfair" * 20}))
    model.says("It is " + "cloudy" * 40 + ".")
    chat.ask("How is the weather in a town with a long name?")
    chat.is_done()
    chat.exchange.locator("summary").tap()
    chat.keep("phone-dark")
    widths = chat.page.evaluate("[document.documentElement.scrollWidth, log.scrollWidth - log.clientWidth]")
    background = chat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    heights = [button.bounding_box()["height"] for button in chat.page.locator("button:visible").all()]
    phone.close()

    assert widths == [360, 0]
    assert min(heights) >= 44
    assert background == "rgb(23, 23, 22)"
    assert chat.errors == []


def test_a_restart_of_the_app_costs_the_page_nothing(chat: ChatPage, app: WebApp, model: ToldModel) -> None:
    speech = model.says("One word after the other.", held=True)
    chat.ask("Say something")
    speech.allow(2)
    chat.sees_text("One word ")

    app.server.kill()
    speech.allow(1)
    app.serve(SERVER)

    chat.sees_text("One word after ")
    speech.finish()
    chat.is_done()
    chat.sees_text("One word after the other.")


def test_a_killed_worker_costs_the_page_what_the_next_one_says_again(
    chat: ChatPage, app: WebApp, model: ToldModel
) -> None:
    """The model is asked again, and says something else: nothing of the first attempt stays."""
    turns_before = {worker: worker.text.count(TURN_RECEIVED) for worker in app.workers}
    lost = model.says("This was said by the dead.", held=True)
    chat.ask("Is anybody there?")
    lost.allow(5)
    chat.sees_text("This was said by the ")
    chat.keep("before-kill")

    [its_worker] = [it for it, count in turns_before.items() if it.text.count(TURN_RECEIVED) > count]
    second = model.says("I live.", held=True)
    its_worker.kill()
    second.allow(1)
    chat.sees_text("I ")
    chat.keep("after-kill")
    second.finish()
    chat.is_done()

    chat.sees_text("I live.")
