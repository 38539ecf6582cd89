"""One answer wins, whoever gives it and whatever happens beside it."""

from __future__ import annotations

from hands import Together, result
from scenes import RING_AGAIN, Scene, claim, parking

from polos.event_data import topic_of
from polos.journal.runs import Claim
from polos.journal.statements import Unit
from polos.journal.suspends import expire, resume, suspend


def place(run: Claim) -> dict[str, str]:
    return {"project": run.project, "root": run.root_id, "topic": topic_of(run.root_name, run.root_id)}


def asking(run: Claim, name: str = "approve", timeout: float | None = None) -> Unit:
    return suspend(
        run.id,
        run.attempt,
        name,
        position=0,
        place=place(run),
        event_type=f"suspend_{name}",
        event_data="{}",
        answer_type=f"resume_{name}",
        timeout_seconds=timeout,
    )


def answering(run: Claim, output: str = '{"data":1}', name: str = "approve") -> Unit:
    return resume(
        run.id,
        name,
        place=place(run),
        output=output,
        event_type=f"resume_{name}",
        event_data="{}",
        ring_again=RING_AGAIN,
    )


def expiring(run: Claim, name: str = "approve") -> Unit:
    return expire(run.id, name, root_id=run.root_id, error="late", ring_again=RING_AGAIN)


def test_of_two_answers_at_once_the_first_counts(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(asking(run))
    first, second = scene.hand(), scene.hand()
    [won] = first.begin(answering(run))
    behind = together.commit_behind(second, answering(run, '{"data":2}'))
    first.end()
    assert won
    assert result(behind) == []
    assert scene.steps(run.id)["approve"].output == '{"data":1}'
    assert scene.run(run.id)["event_seq"] == 3, "start, question, one answer"
    assert scene.run(run.id)["wakes"] == 1


def test_an_answer_and_the_end_of_its_time_exclude_each_other(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(asking(run))
    first, second = scene.hand(), scene.hand()
    first.begin(expiring(run))
    behind = together.commit_behind(second, answering(run))
    first.end()
    assert result(behind) == []
    assert scene.steps(run.id)["approve"].error == "late"


def test_an_answer_while_the_run_is_parked_queues_it(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    scene.do(asking(run))
    first, second = scene.hand(), scene.hand()
    [answer] = first.begin(answering(run))
    parked = together.commit_behind(second, parking(run))
    first.end()
    assert result(parked) == [], "something has happened for it meanwhile"
    assert answer[0][2] == "running"
    scene.do(parking(run, seen_wakes=1))
    scene.do(answering(run))
    assert scene.run(run.id)["status"] == "waiting", "there is nothing left to answer"


def test_a_parked_run_is_queued_by_its_answer(scene: Scene) -> None:
    run = scene.running("a")
    scene.do(asking(run))
    scene.do(parking(run))
    [answer] = scene.do(answering(run))
    assert answer[2] == "queued"
    assert scene.do(claim(run.id, "b"))


def test_a_question_asked_again_after_a_lost_answer_is_told_once(scene: Scene) -> None:
    run = scene.running("a")
    unit = asking(run)
    [(_, number, *_)] = scene.do(unit)
    assert scene.do(unit)[0][1] == number
    assert unit.check is not None
    assert scene.first.read(unit.check.statement, **unit.check.params)[0][1] == number
    assert scene.run(run.id)["event_seq"] == number


def test_a_fenced_run_asks_nothing(scene: Scene) -> None:
    run = scene.running("a")
    scene.lose("a")
    assert scene.do(asking(run)) == []
    assert scene.steps(run.id) == {}
