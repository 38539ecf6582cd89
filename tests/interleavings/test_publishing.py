"""Publishing as a step: the event is there if and only if the step is, and once."""

from __future__ import annotations

from typing import Any

import pytest
from scenes import DONE, Scene
from sqlalchemy import bindparam, func, select

from polos.event_data import topic_of
from polos.journal.events import EVENTS, E, NewEvent, publish, publish_by_step, publish_in_tree
from polos.journal.runs import Claim, hand_back_run
from polos.journal.statements import Statement, Unit
from polos.journal.steps import record_step

COUNT = Statement(select(func.count()).select_from(EVENTS).where(E.topic == bindparam("topic")))
EVENT = NewEvent("progress", '{"part":1}')

each_topic = pytest.mark.parametrize("is_tree", [True, False], ids=["of its tree", "of the program"])


def publishing(run: Claim, *, is_tree: bool, name: str = "step") -> Unit:
    record = record_step(run.id, run.attempt, name, "publish", DONE, position=0, tries=1, worker="a")
    place: dict[str, Any] = {"project": run.project, "root_id": run.root_id, "is_tree": is_tree}
    return publish_by_step(record, EVENT, topic=_topic(run, is_tree=is_tree), **place)


def _topic(run: Claim, *, is_tree: bool) -> str:
    return topic_of(run.root_name, run.root_id) if is_tree else "parts"


def _count(scene: Scene, run: Claim, *, is_tree: bool) -> int:
    [(found,)] = scene.first.read(COUNT, topic=_topic(run, is_tree=is_tree))
    return int(found)


@each_topic
def test_a_unit_repeated_after_a_lost_answer_publishes_nothing_more(scene: Scene, is_tree: bool) -> None:
    run = scene.running("a")
    unit = publishing(run, is_tree=is_tree)
    [(seq, number, _)] = scene.do(unit)
    assert scene.do(unit) == []  # it counts an outcome, for the fence holds, but records none
    assert unit.check is not None
    assert scene.first.read(unit.check.statement, **unit.check.params) == [(seq, 0, 1)]
    assert _count(scene, run, is_tree=is_tree) == 1
    [(_, following, _)] = scene.do(publishing(run, is_tree=is_tree, name="another"))
    assert following == number + 1, "no number was wasted on the repetition"


@each_topic
def test_a_fenced_run_publishes_nothing(scene: Scene, is_tree: bool) -> None:
    run = scene.running("a")
    scene.do(hand_back_run(run.id, run.attempt, ring_again=60.0))
    assert scene.do(publishing(run, is_tree=is_tree)) == []
    assert _count(scene, run, is_tree=is_tree) == 0


def test_events_of_programs_and_of_steps_share_their_numbers(scene: Scene) -> None:
    run = scene.running("a")
    topic = _topic(run, is_tree=True)
    [(first, *_)] = scene.do(publish_in_tree(run.project, topic, run.root_id, [EVENT, EVENT]))
    [(_, second, _)] = scene.do(publishing(run, is_tree=True))
    [(own, *_)] = scene.do(publish(run.project, "parts", [EVENT, EVENT]))
    [(_, next_own, _)] = scene.do(publishing(run, is_tree=False, name="another"))
    assert (second, own, next_own) == (first + 1, 2, 3)


def test_there_is_no_tree_of_another_project(scene: Scene) -> None:
    run = scene.running("a")
    assert scene.do(publish_in_tree("another", _topic(run, is_tree=True), run.root_id, [EVENT])) == []
