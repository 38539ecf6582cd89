"""`polos sessions`, and the sessions that `polos gc` removes, on both databases."""

from __future__ import annotations

import json

import pytest
from written import Written, polos

from polos.journal.ends import Ending, finish_run
from polos.journal.memory import NewMessage, NewSummary, Remembered, SessionKey
from polos.journal.states import RunStatus

pytestmark = pytest.mark.timeout(120)
ASKED = {"role": "user", "content": "How is Paris?"}
CALLED = {"type": "function_call", "name": "look", "call_id": "c", "arguments": '{"city":"Paris"}'}
FOUND = {"type": "function_call_output", "call_id": "c", "output": "mild"}
SAID = {"role": "assistant", "content": "Mild."}


def talked(journal: Written, agent: str = "helper", *, summary: NewSummary | None = None) -> str:
    """Let a run of an agent end that leaves messages; return its id."""
    run = journal.claimed(journal.run(agent, session_id="talk"))
    messages = tuple(NewMessage(json.dumps(item), 10) for item in (ASKED, CALLED, FOUND, SAID))
    left = Remembered(SessionKey("default", "talk", agent), messages, given=1, summary=summary)
    ending = Ending(RunStatus.COMPLETED, output='"Mild."')
    assert journal.do(finish_run(run.id, run.attempt, ending, root_id=run.root_id, remembered=left))
    return run.id


def done(*arguments: str, code: int = 0) -> str:
    answer = polos(*arguments)
    assert answer.exit_code == code, answer.output
    return answer.output.strip()


def test_a_session_is_shown_with_what_was_said(journal: Written) -> None:
    run_id = talked(journal, summary=NewSummary("Ada asked of Paris.", 5, loaded=0, own=3))
    shown = done("sessions", "show", "talk")
    assert "helper" in shown
    assert "summary of messages 1 to 3: Ada asked of Paris." in shown
    assert run_id in shown
    assert "User: How is Paris?" in shown
    assert 'calls the tool look with {"city":"Paris"}' in shown
    assert "The tool returned: mild" in shown
    assert "Assistant: Mild." in shown

    [loaded] = json.loads(done("sessions", "show", "talk", "--json"))
    assert loaded == {"agent_id": "helper", "summary": "Ada asked of Paris.", "messages": [SAID]}


def test_a_session_is_forgotten_by_one_agent_or_by_all(journal: Written) -> None:
    for agent in ("helper", "judge"):
        talked(journal, agent)
    assert "by 1 agent" in done("sessions", "delete", "talk", "--agent", "judge", "--yes")
    assert "judge" not in done("sessions", "show", "talk")
    assert polos("sessions", "delete", "talk").exit_code == 1, "it asks, and nobody says yes"
    assert "helper" in done("sessions", "show", "talk")
    done("sessions", "delete", "talk", "-y")
    assert "Nothing is remembered" in done("sessions", "show", "talk")
    assert "nothing to delete" in done("sessions", "delete", "talk", "-y", code=2)


def test_sessions_of_another_project_are_not_seen(journal: Written) -> None:
    talked(journal)
    assert "Nothing is remembered" in done("sessions", "show", "talk", "--project", "other")


def test_gc_removes_sessions_that_nobody_uses(journal: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    talked(journal)
    assert "and 0 memories" in done("gc", "--dry-run")
    done("gc")
    assert "helper" in done("sessions", "show", "talk")
    monkeypatch.setenv("POLOS_SESSION_RETENTION_DAYS", "0.000000001")
    assert "and 1 memories" in done("gc", "--dry-run")
    assert "1 memories of sessions" in done("gc")
    assert "Nothing is remembered" in done("sessions", "show", "talk")
