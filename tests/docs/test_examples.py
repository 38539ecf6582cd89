"""Each example runs as its README says."""

from __future__ import annotations

from pathlib import Path

import pytest
from models.servers import Answer, ModelServer, recorder
from programs import ROOT, bare_environment, celery, environment, run

pytestmark = pytest.mark.timeout(240)

EXAMPLES = ROOT / "examples"


def test_the_quickstart_answers_from_what_its_tool_returned(server: ModelServer, home: Path) -> None:
    """What the tool returned is what the model reads next; what the model says then is printed."""
    server.calls(("get_weather", {"city": "New York"}), ("get_weather", {"city": "London"}))
    server.says("Both are sunny.")

    printed = run("weather.py", EXAMPLES / "quickstart", environment(server, home))

    assert "21.5" in str(server.requests[-1].body)
    assert printed.startswith("Both are sunny.\n2 turns")


def test_the_workflow_mails_the_agents_answer(server: ModelServer, home: Path) -> None:
    server.says("Click on 'forgot password'.")

    printed = run("support.py", EXAMPLES / "workflow", environment(server, home))

    assert "mail to ada@example.com: Click on 'forgot password'." in printed
    assert "mail-ada@example.com" in printed


def test_the_story_is_streamed(server: ModelServer, home: Path) -> None:
    server.says("The sea was calm.")

    printed = run("story.py", EXAMPLES / "streaming", environment(server, home))

    assert printed.startswith("The sea was calm.\n")
    assert len(server.requests) == 1


def test_plain_celery_workers_serve_a_program_of_its_own(server: ModelServer, home: Path) -> None:
    """The worker executes the runs; the program that asks has no worker in it."""
    server.says("It is explained in the library.", times=2)
    variables = environment(server, home)
    folder = EXAMPLES / "celery_workers"

    with celery("worker", "--loglevel", "info", folder=folder, variables=variables, until=" ready.") as lines:
        printed = run("ask.py", folder, {**variables, "POLOS_EMBEDDED_WORKER": "0"})

    assert "tides: It is explained in the library." in printed
    assert "rainbows: It is explained in the library." in printed
    assert sum("Task research-agent[" in line and "succeeded" in line for line in lines) == 2


def test_searches_are_approved_and_questions_answered(server: ModelServer, home: Path) -> None:
    server.calls(("ask_user", {"question": "Which Polos?", "fields": [{"key": "kind", "label": "Kind"}]}))
    server.calls(("web_search", {"query": "polos island"}))
    server.calls(("web_search", {"query": "kimolos"}))
    server.says("An island: https://polos.example")
    found = {"results": [{"title": "Polos", "url": "https://polos.example", "content": "An island."}]}
    with recorder() as search:
        search.answers(Answer(found))
        variables = environment(server, home)
        variables |= {"TAVILY_BASE_URL": search.url, "TAVILY_API_KEY": "tvly-test"}
        typed = "What is Polos?\nthe island\nn\nToo broad\ny\n"
        printed = run("research.py", EXAMPLES / "approvals", variables, typed=typed)

        assert [seen.body["query"] for seen in search.seen] == ["kimolos"]
    assert "Which Polos?" in printed
    assert '"query": "polos island"' in printed
    assert printed.endswith("An island: https://polos.example\n")
    assert "the island" in str(server.requests[1].body)
    assert "Feedback: Too broad" in str(server.requests[2].body)


def test_the_assistant_uses_a_server_of_tools(server: ModelServer, tmp_path: Path, home: Path) -> None:
    server.calls(("notes_add", {"text": "the milk is empty"}))
    server.calls(("notes_read", {}))
    server.says("One note: the milk is empty.")
    for file in (EXAMPLES / "mcp").glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())  # what it leaves behind is not ours

    printed = run("assistant.py", tmp_path, environment(server, home))

    assert printed.splitlines() == [
        "notes_add: {'result': 'noted'}",
        "notes_read: {'result': ['the milk is empty']}",
        "One note: the milk is empty.",
    ]
    assert (tmp_path / "notes.txt").read_text() == "the milk is empty\n"


WORKFLOWS = {
    "basics.py": ["count=2 items=['HELLO', 'WORLD']", "count=2 items=['tea', 'milk']"],
    "questions.py": ["asked: person", "asked: contact", "asked: review by bob", "completed {'name': 'Ada'"],
    "state.py": ["from 0: 5", "from 100: 105", "kept: {'count': 2, 'history': ['+2']}"],
    "errors.py": ["the answer", "'way': 'second'", "'booked'", "cancelled hotel", "['hotel', 'flight']"],
    "queues.py": ["pages printed at once: 1", "mails sent at once, at most 3: ", "slow lane at once: 1"],
    "parallel.py": [
        "{'reviewers': ['Ada', 'Grace', 'Edsger'], 'average': 9.666666666666666}",
        "5 runs started",
    ],
    "topics.py": [
        "packing order 7",
        "3 views in one run",
        "counted: 3",
        "event_type='packed' data={'number': 7}",
    ],
    "clock.py": ["remind ada 0 9 * * * Europe/London active", "{'removed': 25}"],
}


@pytest.mark.parametrize("program", WORKFLOWS)
def test_what_a_workflow_does(program: str, tmp_path: Path) -> None:
    folder = EXAMPLES / "workflows"
    (tmp_path / program).write_text((folder / program).read_text())  # what it leaves behind is not ours

    printed = run(program, tmp_path, bare_environment(tmp_path / ".polos"))

    assert [line for line in WORKFLOWS[program] if line not in printed] == [], printed


@pytest.mark.parametrize(
    "folder", sorted(path for path in EXAMPLES.iterdir() if path.is_dir()), ids=lambda p: p.name
)
def test_each_example_says_how_to_run_it(folder: Path) -> None:
    """Every program that a README names is there, and every program is named."""
    text = (folder / "README.md").read_text()
    programs = {path.name for path in folder.glob("*.py") if "__main__" in path.read_text()}

    assert programs
    assert {name for name in programs if f"python {name}" in text} == programs
