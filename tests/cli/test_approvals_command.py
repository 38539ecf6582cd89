"""`polos approvals`, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from written import Written, polos

from polos import event_data, serialization
from polos.engine.approving import question
from polos.journal.standing_approvals import AllowedCall, allow
from polos.journal.states import RunStatus
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.suspends import suspend

pytestmark = pytest.mark.timeout(120)

CALL = AllowedCall("default", "s1", "payer", "pay", {"to": "ada"})
SIZE = {"_form": {"title": "Size?", "fields": [{"key": "size", "type": "number", "required": True}]}}


def done(*arguments: str) -> str:
    answer = polos("approvals", *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output.strip()


def refused(*arguments: str) -> str:
    answer = polos("approvals", *arguments)
    assert answer.exit_code == 2, answer.output
    return " ".join(answer.stderr.split())


def ask(journal: Written, run_id: str, key: str, data: dict[str, Any], *, attempt: int = 1) -> None:
    place = {"project": "default", "root": run_id, "topic": event_data.topic_of("flow", run_id)}
    journal.do(
        suspend(
            run_id,
            attempt,
            key,
            position=0,
            place=place,
            event_type=event_data.suspend_type(key),
            event_data=serialization.dumps(data),
            answer_type=event_data.resume_type(key),
            timeout_seconds=3600.0,
        )
    )


def asking(journal: Written, **questions: dict[str, Any]) -> str:
    """Write a run that has asked; return its id."""
    run_id = journal.run(session_id="s1")
    journal.claimed(run_id)
    for key, data in questions.items():
        ask(journal, run_id, key, data)
    return run_id


def answer_of(journal: Written, run_id: str, key: str) -> dict[str, Any]:
    steps = [step_details(row) for row in journal._connection.read(READ_STEP_DETAILS, {"run": run_id})]
    [step] = [step for step in steps if step["name"] == key]
    event: dict[str, Any] = serialization.loads(step["output"])
    return {"data": event["data"], "by": event.get("answered_by")}


def test_open_questions_are_listed_and_shown(journal: Written) -> None:
    assert done() == "Nothing waits for an answer."
    run_id = asking(journal, approve_pay_1=question(CALL))
    for listed in (done(), done("list", "--session", "s1")):
        assert run_id in listed
        assert "approve_pay_1" in listed
        assert '"to": "ada"' in listed
    assert "Nothing" in done("list", "--session", "s2")
    assert "Nothing" in done("list", "--project", "other")
    [shown] = json.loads(done("list", "--json"))
    assert (shown["execution_id"], shown["step_key"]) == (run_id, "approve_pay_1")
    assert shown["data"]["_tool"] == "pay"
    text = done("show", run_id[:8])
    assert "Approve tool: pay" in text
    assert "approved (boolean; required)" in text


def test_a_question_is_approved(journal: Written) -> None:
    run_id = asking(journal, approve_pay_1=question(CALL))
    assert "Answered 'approve_pay_1'" in done("answer", run_id, "--approve", "--always", "--by", "Grace")
    answer = {"approved": True, "allow_always": True}
    assert answer_of(journal, run_id, "approve_pay_1") == {"data": answer, "by": "Grace"}
    assert done() == "Nothing waits for an answer."
    assert "waits for no answer" in refused("answer", run_id, "--approve")


def test_a_question_is_rejected_with_feedback(journal: Written) -> None:
    run_id = asking(journal, approve_pay_1=question(CALL))
    done("answer", run_id, "approve_pay", "--reject", "--feedback", "Too much")
    found = answer_of(journal, run_id, "approve_pay_1")
    assert found["data"] == {"approved": False, "feedback": "Too much", "allow_always": False}
    assert found["by"]


def test_of_several_questions_one_is_named(journal: Written) -> None:
    run_id = asking(journal, size_1=SIZE, size_2=SIZE)
    assert "waits for several answers; the keys are: size_1, size_2" in refused("answer", run_id, "--approve")
    assert "waits for several answers" in refused("answer", run_id, "size", "--set", "size=1")
    assert "has no question 'weight'" in refused("answer", run_id, "weight", "--set", "size=1")
    done("answer", run_id, "size_2", "--set", "size=2,5")
    assert answer_of(journal, run_id, "size_2")["data"] == {"size": 2.5}
    done("answer", run_id, "--data", '{"size": 3}')
    assert answer_of(journal, run_id, "size_1")["data"] == {"size": 3}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Say --approve or --reject"),
        (("--set", "size"), "is not FIELD=VALUE"),
        (("--set", "size=big"), "takes a number, not 'big'"),
        (("--approve",), "lacks a field 'size', which is required"),
        (("--data", "{"), "--data is no JSON"),
        (("--data", "[1]"), "must be a JSON object, not list"),
    ],
)
def test_an_answer_of_no_use_is_refused(journal: Written, arguments: tuple[str, ...], problem: str) -> None:
    run_id = asking(journal, size=SIZE)
    assert problem in refused("answer", run_id, *arguments)
    assert run_id in done()


def test_a_run_that_has_ended_or_is_none_asks_nothing(journal: Written) -> None:
    run_id = journal.ended(journal.run(), RunStatus.COMPLETED)
    assert "waits for no answer" in refused("answer", run_id, "--approve")
    assert "no run 'nowhere'" in refused("answer", "nowhere", "--approve")


def test_standing_approvals_are_listed_and_revoked(journal: Written) -> None:
    assert "No call" in done("standing")
    for _ in range(2):
        journal.do(allow(CALL, run_id="r1", answered_by="Grace"))
    [shown] = json.loads(done("standing", "--json"))
    assert (shown["tool"], shown["arguments"], shown["answered_by"]) == ("pay", '{"to":"ada"}', "Grace")
    assert "Grace" in done("standing")
    assert "no standing approvals" in refused("revoke", shown["id"], "--project", "other")
    assert "asked about again" in done("revoke", shown["id"][:10])
    assert "No call" in done("standing")
