"""Events start runs: each event counts once for each trigger, alone or in batches."""

from __future__ import annotations

import json

import pytest
from post import Post, until

from polos.events import BatchEventPayload, EventPayload
from polos.journal.events import NewEvent, publish
from polos.journal.queues import Limits, declare_queue
from polos.journal.statements import Unit
from polos.journal.triggers import withdraw_triggers
from polos.triggers import fire_triggers

pytestmark = pytest.mark.timeout(120)


def test_an_event_starts_a_run_with_the_event(post: Post) -> None:
    post.trigger("w", "orders")
    post.publish("orders", 7)
    fired = post.fire()

    [run] = post.runs("w")
    event = EventPayload.model_validate(json.loads(run["input"]))
    assert (event.topic, event.event_type, event.data) == ("orders", "said", {"n": 7})
    assert event.id == str(event.sequence_id) == "1"
    assert abs(event.created_at.timestamp() - post.now()) < 60
    assert run["session_id"]
    assert (run["queue"], run["root_id"], run["hops"]) == ("w", run["id"], 1)
    assert [bell.run_id for bell in fired.bells] == [run["id"]]


def test_every_trigger_gets_every_event_once(post: Post) -> None:
    post.trigger("one", "orders")
    post.trigger("two", "orders")
    for number in range(3):
        post.publish("orders", number)
        post.fire()
        post.fire()
    assert post.told("one") == post.told("two") == [0, 1, 2]


def test_many_events_start_as_many_runs(post: Post) -> None:
    post.trigger("w", "orders")
    post.publish("orders", *range(250))
    post.fire()
    assert post.told("w") == list(range(250))


def test_what_was_published_before_the_trigger_was_there_does_not_count(post: Post) -> None:
    post.publish("orders", 1, 2)
    post.trigger("w", "orders")
    post.publish("orders", 3)
    post.fire()
    assert post.told("w") == [3]


def test_it_counts_from_the_beginning_if_that_is_wanted(post: Post) -> None:
    post.publish("orders", 1, 2)
    post.trigger("w", "orders", from_beginning=1)
    post.fire()
    assert post.told("w") == [1, 2]


def test_what_was_published_while_nobody_served_counts(post: Post) -> None:
    """The cursor stays when workers start again, whatever `from_beginning` says."""
    post.trigger("w", "orders")
    post.publish("orders", 1)
    post.trigger("w", "orders", from_beginning=1)
    post.fire()
    post.trigger("w", "orders", from_beginning=1)
    post.fire()
    assert post.told("w") == [1]


def test_topics_of_another_project_are_others(post: Post) -> None:
    post.trigger("w", "orders")
    post.trigger("w", "orders", project="other")
    post.publish("orders", 1, project="other")
    post.fire()
    [run] = post.runs("w")
    assert run["project"] == "other"


# -- batches


def test_a_batch_starts_when_it_is_full(post: Post) -> None:
    post.trigger("w", "orders", size=3, seconds=30)
    post.publish("orders", *range(7))
    fired = post.fire()
    assert post.told("w") == [[0, 1, 2], [3, 4, 5]]
    assert fired.again_seconds is not None
    assert 25 < fired.again_seconds <= 30
    BatchEventPayload.model_validate(json.loads(post.runs("w")[0]["input"]))


def test_a_batch_starts_when_its_oldest_event_has_waited_long_enough(post: Post) -> None:
    post.trigger("w", "orders", size=10, seconds=30)
    post.publish("orders", 1, 2)
    post.fire()
    assert post.told("w") == []
    post.age("orders", 31)
    post.publish("orders", 3)
    post.fire()
    assert post.told("w") == [[1, 2, 3]]


def test_the_sweeper_wakes_for_the_end_of_a_batch(post: Post) -> None:
    post.trigger("w", "orders", size=10, seconds=0.3)
    post.publish("orders", 1)
    sweeper = post.sweeper()
    sweeper.start()
    until(lambda: post.told("w"))
    assert post.told("w") == [[1]]


def test_a_batch_without_a_time_starts_with_what_is_there(post: Post) -> None:
    post.trigger("w", "orders", size=10)
    post.publish("orders", 1, 2)
    post.fire()
    post.publish("orders", 3)
    post.fire()
    assert post.told("w") == [[1, 2], [3]]


def test_one_event_with_a_time_is_a_batch_of_one(post: Post) -> None:
    post.trigger("w", "orders", size=1, seconds=30)
    post.publish("orders", 1, 2)
    post.fire()
    assert post.told("w") == [[1], [2]]


def test_a_batch_is_no_larger_than_a_payload_may_be(post: Post) -> None:
    post.settings = post.settings.with_values(max_value_bytes=1000)
    post.trigger("w", "orders", size=10, seconds=30)
    post.publish("orders", "x" * 600, "y" * 600)
    post.fire()
    assert [len(batch) for batch in post.told("w")] == [1], "the second may still be joined by others"


# -- many at once


@pytest.mark.parametrize("size", [1, 4])
def test_three_sweepers_start_each_event_once(post: Post, size: int) -> None:
    """While events are published, and one sweeper is stopped meanwhile."""
    post.trigger("w", "orders", size=size)
    sweepers = [post.sweeper() for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    for number in range(60):
        post.publish("orders", number)
        if number == 30:
            sweepers[0].stop()
    until(lambda: post.triggers()["w", "orders"]["cursor"] == 60)
    found = [number for told in post.told("w") for number in (told if size > 1 else [told])]
    assert found == list(range(60))


def test_who_was_late_starts_nothing(post: Post) -> None:
    """It read the same events, and then another was quicker, and went on."""
    post.trigger("w", "orders", size=10)
    post.publish("orders", 1, 2)
    slow = _Slow(post)
    fire = post.fire

    def meanwhile() -> None:
        fire()
        post.publish("orders", 3)
        fire()

    slow.meanwhile = meanwhile

    assert fire_triggers(slow, post.settings).bells == []
    assert post.told("w") == [[1, 2], [3]]


class _Slow:
    """A journal whose user is overtaken before the first commit."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.meanwhile = lambda: None
        self.read = post.journal.read

    def commit(self, units: list[Unit]):
        self.meanwhile()
        return self._post.journal.commit(units)


def test_a_withdrawn_trigger_starts_nothing_that_was_found_before(post: Post) -> None:

    post.trigger("w", "orders")
    post.publish("orders", 1)
    slow = _Slow(post)
    slow.meanwhile = lambda: post.do(
        withdraw_triggers("default", deployment="default", offered='["w"]', declared="[]", silence=10)
    )
    fire_triggers(slow, post.settings)
    assert post.runs("w") == []
    assert post.triggers()["w", "orders"]["cursor"] == 0


# -- triggers that trigger one another


def test_a_run_stands_one_trigger_further_from_the_first_event(post: Post) -> None:
    post.trigger("w", "orders", size=2)
    post.publish("orders", 1)
    post.publish("orders", 2, by=post.run(hops=2))
    post.fire()
    assert [run["hops"] for run in post.runs("w")] == [3]


def test_a_cycle_ends_with_a_run_that_says_so(post: Post) -> None:
    """The trigger goes on with the next event."""
    post.trigger("w", "orders")
    post.publish("orders", 1, by=post.run(hops=3))
    fired = post.fire()
    [run] = post.runs("w")
    assert run["status"] == "failed"
    assert "POLOS_MAX_TRIGGER_HOPS" in run["error"]
    assert run["finished_at"] is not None
    assert fired.bells == []
    post.publish("orders", 2)
    post.fire()
    assert [run["status"] for run in post.runs("w")] == ["failed", "queued"]


def test_a_workflow_that_triggers_itself_stops(post: Post) -> None:
    post.trigger("w", "orders")
    post.publish("orders", 0)
    for _ in range(10):
        post.fire()
        for run in post.runs("w"):
            if run["status"] == "queued" and run["id"] not in {bell.run_id for bell in post.bells.rung}:
                post.bells.rung.append(type("Bell", (), {"run_id": run["id"]})())
                post.do(publish("default", "orders", [NewEvent("again", '{"n": 1}', run["id"])]))
    assert [run["status"] for run in post.runs("w")] == ["queued"] * 3 + ["failed"]


# -- how soon


def test_a_sweeper_that_is_told_of_an_event_does_not_wait_for_its_next_sweep(post: Post) -> None:
    """And it is not troubled by topics that start nothing."""
    post.settings = post.settings.with_values(sweep_seconds=30.0)
    post.trigger("w", "orders")
    sweeper = post.sweeper()
    sweeper.start()
    until(lambda: sweeper._desk.triggering_topics)
    post.publish("orders", 1)
    sweeper.published("default", "invoices")
    assert not sweeper._poked.is_set()
    sweeper.published("default", "orders")
    until(lambda: post.runs("w"))


def test_runs_of_a_queue_with_limits_wait_to_be_admitted(post: Post) -> None:
    post.do(declare_queue("default", "default", "w", Limits(concurrency_limit=1)))
    post.trigger("w", "orders")
    post.publish("orders", 1, 2)
    fired = post.fire()
    assert fired.bells == []
    assert [run["slot"] for run in post.runs("w")] == ["wanted", "wanted"]
    assert [(run["queue"], run["slot"]) for run in fired.pending] == [("w", "wanted")] * 2


def test_who_publishes_many_events_leaves_the_rest_to_others(post: Post) -> None:
    post.trigger("w", "orders")
    post.publish("orders", *range(250))
    fire_triggers(post.journal, post.settings, ("default", "orders"), max_transactions=1)
    assert post.told("w") == list(range(100))
    post.fire()
    assert post.told("w") == list(range(250))
