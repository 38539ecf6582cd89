"""Each program of examples/agents prints what a reader expects of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from models.servers import ModelServer
from programs import PROGRAM_SECONDS, ROOT, environment, run

pytestmark = pytest.mark.timeout(240)
FOLDER = ROOT / "examples" / "agents"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy: the programs write their logs beside themselves."""
    for program in FOLDER.glob("*.py"):
        (tmp_path / program.name).write_text(program.read_text())
    return tmp_path


def test_the_review_is_an_instance(server: ModelServer, home: Path, folder: Path) -> None:
    server.says(json.dumps({"title": "Alien", "rating": 9, "pros": ["dark"]}))
    assert run("movie.py", folder, environment(server, home)) == (
        "Alien: 9 of 10\nfor: dark\nagainst: nothing\n"
    )


def test_guardrails_hide_refuse_and_judge(server: ModelServer, home: Path, folder: Path) -> None:
    server.says("I guarantee it.")
    server.says("Write to ada@example.com, and sue.")
    server.says('{"passed": false, "reason": "legal advice"}')
    server.says("Write to ada@example.com.")
    server.says('{"passed": true, "reason": "fine"}')
    assert run("guarded.py", folder, environment(server, home)) == "Write to [EMAIL REDACTED].\n"
    assert len(server.requests) == 5


def test_every_hook_prints_once(server: ModelServer, home: Path, folder: Path) -> None:
    server.calls(("search", {"query": "Lamps"}))
    server.says("Two lamps.")
    printed = run("hooked.py", folder, environment(server, home)).splitlines()
    assert printed[:4] == [
        "Agent started: What lamps have you got?",
        "[Step 1] model call",
        "[Tool] search {'query': 'Lamps'}",
        "[Tool] search returned {'found': ['lamps 1', 'lamps 2']}",
    ]
    assert printed[4:] == ["[Step 2] model call", printed[5], "Two lamps."]
    assert printed[5].startswith("Agent completed: 2 steps")


def test_a_chat_remembers_and_ends_with_its_input(server: ModelServer, home: Path, folder: Path) -> None:
    server.calls(("add", {"a": 1, "b": 2}))
    server.says("It is three.")
    server.says("You asked for a sum.")
    done = subprocess.run(
        [sys.executable, "chat.py"],
        cwd=folder,
        env=environment(server, home),
        input="What is 1 and 2?\nWhat did I ask?\nquit\n",
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "[Using add...]\nIt is three." in done.stdout
    assert "You asked for a sum." in done.stdout
    conversation = json.dumps(server.requests[-1].body)
    assert "What is 1 and 2?" in conversation
    assert "It is three." in conversation


def test_another_agent_answers(server: ModelServer, home: Path, folder: Path) -> None:
    server.calls(("transfer_to_billing", {}))
    server.calls(("find_invoice", {"name": "Ada"}))
    server.says("At the end of January.")
    printed = run("handoff.py", folder, environment(server, home))
    assert printed == "billing: At the end of January.\n"


def test_reviewers_work_side_by_side_and_apart(server: ModelServer, home: Path, folder: Path) -> None:
    server.says("A post.")
    server.says("Good.", times=3)
    server.says("The final post.")
    printed = run("blog.py", folder, environment(server, home)).splitlines()
    assert printed[0] == "[agent_finish] blog-writer"
    assert sorted(printed[1:4]) == [
        f"[agent_finish] {view}-reviewer" for view in ("facts", "grammar", "style")
    ]
    assert printed[4:] == ["[agent_finish] blog-editor", "[workflow_finish] write_blog", "The final post."]
    reviews = [request.body["input"] for request in server.requests[1:4]]
    assert all(len(messages) == 1 for messages in reviews)


def test_an_order_is_charged_once(server: ModelServer, home: Path, folder: Path) -> None:
    server.calls(("charge_card", {"customer": "ada", "amount": 250}))
    server.says('{"charge_id": "ch_ada", "amount": 250}')
    printed = run("order.py", folder, environment(server, home)).splitlines()
    assert printed[0] == "*** charged ada 250.00"
    assert printed[1].startswith("*** mail to ada")
    assert printed[2:] == ["completed completed"]


def test_a_run_ends_when_its_budget_is_spent(server: ModelServer, home: Path, folder: Path) -> None:
    for number in range(9):
        server.calls(("search", {"query": f"owls {number}"}))
    printed = run("budget.py", folder, environment(server, home)).splitlines()
    calls = len(server.requests)
    assert "The usage limit max_cost=0.0005 of run" in printed[0], printed
    assert re.search(rf"is used up: \$0\.000[5-9]\d\d in {calls} model calls\.", printed[0]), printed
    assert printed[1].startswith(f"openai/gpt-4o: {calls} calls, ")
