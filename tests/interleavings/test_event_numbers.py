"""Numbers of a tree grow in the order of commits, without holes: who has one can have all before it."""

from __future__ import annotations

from hands import Together, result
from scenes import RING_AGAIN, Scene, finishing, recording, turn_completion

from polos.journal.children import cancel_run
from polos.journal.runs import Claim
from polos.journal.statements import Unit


def cancelling(child: Claim) -> Unit:
    return cancel_run(
        child.id,
        root_id=child.root_id,
        parent_id=child.parent_id,
        parent_step=child.parent_step,
        cancelled_by="user",
        error="e",
        ring_again=RING_AGAIN,
    )


def test_an_end_waits_for_an_open_end_of_the_same_tree(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    children = [scene.claimed(scene.child(run, step=f"child {n}").id, "b") for n in range(2)]
    first, second = scene.hand(), scene.hand()
    [answer] = first.begin(finishing(children[0]))
    behind = together.commit_behind(second, finishing(children[1]))
    first.end()
    assert answer[0][3] == 2, "after the start of the root"
    assert result(behind)[0][3] == 3
    assert scene.run(run.id)["event_seq"] == 3


def test_whatever_is_numbered_takes_its_place_behind_what_is_open(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    turn = scene.turn(run, worker="b")
    child = scene.claimed(scene.child(run).id, "b")
    first, second = scene.hand(), scene.hand()
    [answer] = first.begin(turn_completion(turn, "b"))
    behind = together.commit_behind(second, cancelling(child))
    first.end()
    assert (answer[0][3], result(behind)[0][3]) == (2, 3)


def test_steps_of_a_root_are_numbered_and_those_below_it_are_not(scene: Scene) -> None:
    root = scene.running("a")
    child = scene.claimed(scene.child(root).id, "a")
    assert [scene.do(recording(run, "a"))[0][1] for run in (root, child)] == [2, None]
    assert scene.run(root.id)["event_seq"] == 2


def test_what_is_rolled_back_leaves_no_hole(scene: Scene) -> None:
    run = scene.running("a")
    children = [scene.claimed(scene.child(run, step=f"child {n}").id, "b") for n in range(2)]
    first = scene.hand()
    first.begin(finishing(children[0]))
    first.abandon()
    assert scene.do(finishing(children[1]))[0][3] == 2


def test_a_run_that_ends_twice_is_numbered_once(scene: Scene) -> None:
    run = scene.running("a")
    child = scene.claimed(scene.child(run).id, "b")
    assert scene.do(finishing(child))
    assert scene.do(finishing(child)) == []
    assert scene.do(cancelling(child)) == []
    assert scene.run(run.id)["event_seq"] == 2
    assert scene.run(child.id)["ended_event"] == 2


def test_grandchildren_are_numbered_in_the_tree_of_their_root(scene: Scene) -> None:
    root = scene.running("a")
    child = scene.claimed(scene.child(root).id, "a")
    grandchild = scene.claimed(scene.child(child).id, "a")
    turn = scene.turn(grandchild, worker="b")
    numbers = [
        scene.do(unit)[0][3] for unit in (turn_completion(turn, "b", root_id=root.id), finishing(grandchild))
    ]
    assert numbers == [2, 3]
    assert scene.do(finishing(child))[0][3] == 4
    assert scene.do(finishing(root))[0][3] == 5
