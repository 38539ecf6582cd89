"""The page that answers a question: over plain HTTP, and in a browser as a person does."""

from __future__ import annotations

import html
import re
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from stand import API, Stand, stand

from polos import event_data, serialization
from polos.approval_links import ApprovalRight
from polos.journal.closing import close_run
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.runs import NewRun, claim_run
from polos.journal.states import RunStatus
from polos.journal.suspends import suspend

PROJECT = "forms"
YES_NO = ["yes", "no"]
LEVELS = [{"label": "Low", "value": 1}, {"label": "High", "value": 2}]
FORM = {
    "title": "Deploy <b>now</b>?",
    "description": "Line one\nLine two",
    "context": {"version": "1.2.3", "diff": {"files": 3}},
    "fields": [
        {
            "key": "decision",
            "type": "select",
            "label": "Decision",
            "required": True,
            "options": ["yes", "no"],
        },
        {
            "name": "level",
            "type": "select",
            "options": LEVELS,
        },
        {"key": "count", "type": "number", "label": "How many", "required": True, "default": 2},
        {"key": "sure", "type": "boolean", "label": "Quite sure", "default": True},
        {"key": "note", "type": "textarea", "label": "Note"},
        {"key": "by", "label": "Approved by", "description": "Who decides"},
    ],
}


class Question:
    """A question of a run, and the page that asks it."""

    def __init__(self, server: Stand, data: dict[str, Any], *, key: str = "go/ahead now") -> None:
        self.key = key
        self.run_id = str(uuid.uuid4())
        self._server = server
        self._journal = Database(server.settings.database_url).connect()
        place = {"project": PROJECT, "deployment": "default"}
        new = NewRun(
            id=self.run_id,
            kind="workflow",
            name="asks",
            queue="asks",
            route="polos",
            root_id=self.run_id,
            root_name="asks",
            **place,
        )
        self.commit(create_run(new, ring_again=60.0))
        self.commit(claim_run(self.run_id, "w", **place))
        self.commit(self._unit(data))

    def _unit(self, data: dict[str, Any]) -> Any:
        return suspend(
            self.run_id,
            1,
            self.key,
            position=0,
            place={
                "project": PROJECT,
                "root": self.run_id,
                "topic": event_data.topic_of("asks", self.run_id),
            },
            event_type=event_data.suspend_type(self.key),
            event_data=serialization.dumps(data),
            answer_type=event_data.resume_type(self.key),
            timeout_seconds=None,
        )

    def commit(self, unit: Any) -> Any:
        return self._journal.commit([unit])[0]

    def close(self) -> None:
        self._journal.close()

    @property
    def url(self) -> str:
        right = ApprovalRight(PROJECT, self.run_id, self.key, time.time() + 60)
        return f"{self.path}?{urlencode({'token': right.token(self._server.settings.approval_secret)})}"

    @property
    def path(self) -> str:
        return f"/approve/{self.run_id}/{quote(self.key, safe='')}"

    def answer(self) -> dict[str, Any]:
        """Return what the API says of it."""
        client = self._server.client(self._server.key(PROJECT))
        found: dict[str, Any] = client.get(f"{API}/approvals/{self.run_id}/{quote(self.key, safe='')}").json()
        return found


@pytest.fixture
def ask(server: Stand) -> Iterator[Any]:
    asked: list[Question] = []

    def new(data: dict[str, Any], **options: Any) -> Question:
        asked.append(Question(server, data, **options))
        return asked[-1]

    yield new
    for question in asked:
        question.close()


@pytest.fixture
def person(server: Stand) -> httpx.Client:
    """Somebody with a link and without a key."""
    return server.client()


def inputs(page: str) -> dict[str, str]:
    """Return the names of the inputs by the labels that people see."""
    found = re.findall(r'<label for="([^"]+)">([^<]*)</label>', page)
    return {html.unescape(label).removesuffix(" (optional)"): name for name, label in found}


def test_the_form_is_shown_escaped_with_its_context_and_defaults(ask: Any, person: httpx.Client) -> None:
    page = person.get(ask({"_form": FORM}).url)
    assert page.status_code == 200
    assert "<b>now" not in page.text
    assert "Deploy &lt;b&gt;now&lt;/b&gt;?" in page.text
    assert "1.2.3" in page.text
    assert list(inputs(page.text)) == [
        "Decision",
        "level",
        "How many",
        "Quite sure",
        "Note",
        "Approved by",
        "Your name",
    ]
    assert re.search(r'inputmode="decimal" value="2"', page.text)
    assert re.search(r'type="checkbox" value="on"[^>]*checked', page.text)


def test_what_is_entered_is_the_answer_with_its_types(ask: Any, person: httpx.Client) -> None:
    question = ask({"_form": FORM})
    names = inputs(person.get(question.url).text)
    entered = {
        names["Decision"]: "0",
        names["level"]: "1",
        names["How many"]: "7",
        names["Note"]: "a\r\nb",
        names["Approved by"]: "Ada",
        "_answered_by": "Grace",
    }
    sent = person.post(question.url, data=entered)
    assert sent.status_code == 303
    after = person.get(sent.headers["location"])
    assert (after.status_code, "<form" in after.text) == (200, False)
    assert "the answer is recorded" in after.text
    assert question.answer()["answer"] == {
        "decision": "yes",
        "level": 2,
        "count": 7,
        "sure": False,
        "note": "a\nb",
        "by": "Ada",
        "_answered_by": "Grace",
    }


def test_what_does_not_fit_is_said_beside_it_and_nothing_is_lost(ask: Any, person: httpx.Client) -> None:
    question = ask({"_form": FORM})
    names = inputs(person.get(question.url).text)
    page = person.post(question.url, data={names["How many"]: "many", names["Note"]: "<i>kept</i>"})
    assert page.status_code == 400
    assert "Please enter a number." in page.text
    assert "Please fill this in." in page.text
    assert "&lt;i&gt;kept&lt;/i&gt;" in page.text
    assert question.answer()["status"] == "waiting"


@pytest.mark.parametrize(
    ("text", "answer"), [('{"approved": true}', {"approved": True}), ("[1]", {"value": [1]}), ("", {})]
)
def test_without_fields_any_json_is_the_answer(
    ask: Any, person: httpx.Client, text: str, answer: dict[str, Any]
) -> None:
    question = ask({"reason": "why not"})
    assert "why not" in person.get(question.url).text
    assert person.post(question.url, data={"json": text}).status_code == 303
    assert question.answer()["answer"] == answer


def test_what_is_no_json_is_refused(ask: Any, person: httpx.Client) -> None:
    question = ask({})
    for text in ("{", "NaN", "[" * 100_000):
        page = person.post(question.url, data={"json": text})
        assert (page.status_code, "This is no JSON" in page.text) == (400, True)


def test_the_first_answer_counts(ask: Any, person: httpx.Client) -> None:
    question = ask({})
    assert person.post(question.url, data={"json": '{"n": 1}'}).status_code == 303
    again = person.post(question.url, data={"json": '{"n": 2}'})
    assert (again.status_code, "the answer is recorded" in again.text) == (200, True)
    assert question.answer()["answer"] == {"n": 1}


def test_a_question_of_an_ended_run_is_over(ask: Any, person: httpx.Client) -> None:
    question = ask({})
    question.commit(finish_run(question.run_id, 1, Ending(RunStatus.FAILED), root_id=question.run_id))
    question.commit(close_run(question.run_id))
    page = person.get(question.url)
    assert (page.status_code, "is over" in page.text, "<form" in page.text) == (410, True, False)
    assert person.post(question.url, data={"json": "{}"}).status_code == 410


def test_only_the_link_of_this_question_opens_it(server: Stand, ask: Any, person: httpx.Client) -> None:
    question, other = ask({}), ask({})
    token = other.url.partition("?")[2]
    for url, status in (
        (question.path, 401),
        (f"{question.path}?token=", 401),
        (f"{question.path}?token=x.y", 401),
        (f"{question.path}?{token}", 403),
    ):
        assert person.get(url).status_code == status
        assert person.post(url, data={"json": "{}"}).status_code == status
    assert question.answer()["status"] == "waiting"
    right = ApprovalRight(PROJECT, str(uuid.uuid4()), "k", time.time() + 60)
    unknown = f"/approve/{right.root_id}/k?token={right.token(server.settings.approval_secret)}"
    assert person.get(unknown).status_code == 404


def test_the_page_runs_nothing_and_tells_its_link_to_nobody(ask: Any, person: httpx.Client) -> None:
    page = person.get(ask({"_form": FORM}).url)
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "form",
    [
        {"fields": "x"},
        {"fields": [1, {}, {"key": ""}, {"key": "a", "type": "?"}, {"key": "a", "options": 5}]},
        {"title": ["x"], "context": [1, 2], "fields": [{"key": "a", "type": "select", "default": {}}]},
        "text",
        None,
    ],
)
def test_forms_of_any_shape_are_shown(ask: Any, person: httpx.Client, form: Any) -> None:
    question = ask({"_form": form})
    assert person.get(question.url).status_code == 200
    assert person.post(question.url, data={"json": "{}", "field-0": ""}).status_code == 303


def test_locally_it_needs_no_link_and_pages_of_others_cannot_answer(server: Stand, ask: Any) -> None:
    question = ask({})
    local = server.settings.with_values(local_mode="true", project_id=PROJECT)
    with stand(local) as here:
        person = here.client()
        assert person.get(question.path).status_code == 200
        foreign = {"Origin": "https://evil.example"}
        assert person.post(question.path, data={"json": "{}"}, headers=foreign).status_code == 403
        assert person.post(question.path, data={"json": '{"ok": 1}'}).status_code == 303
    assert question.answer()["answer"] == {"ok": 1}


def test_a_person_answers_in_a_browser(server: Stand, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "web"))
    sys.modules.pop("chat_page", None)
    from chat_page import chromium

    question = ask({"_form": FORM})
    browsers = chromium()
    with browsers as browser:
        context = browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False)
        page = context.new_page()
        page.goto(server.url + question.url)
        page.get_by_label("Decision").select_option(label="no")
        page.get_by_label("How many").fill("3")
        page.get_by_label("Approved by").fill("Ada")
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("status").filter(has_text="the answer is recorded").wait_for()
        context.close()
    answer = question.answer()["answer"]
    assert (answer["decision"], answer["count"], answer["by"], answer["sure"]) == ("no", 3, "Ada", True)
