"""When runs begin: rates, delays, and calls that collapse into one."""

from __future__ import annotations

import time

import pytest
from counter import Counter
from hypothesis import given
from hypothesis import strategies as st

from polos.journal.queues import Limits, smallest_limits
from polos.queues import check_start

PATIENCE_SECONDS = 60.0


def until_admitted(counter: Counter, number: int) -> list[tuple[float, str]]:
    """Look as often as each look asks for; return who was admitted when, once `number` were."""
    found: list[tuple[float, str]] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < number and time.monotonic() < deadline:
        outcome = counter.look()
        for bell in outcome.bells:
            counter.end(counter.claim(bell.run_id))
            found.append((time.monotonic(), bell.run_id))
        time.sleep(min(outcome.again_seconds or 0.01, 0.05))
    return found


def test_a_rate_spaces_what_begins_evenly(counter: Counter) -> None:
    counter.limit("q", rate_limit=40, rate_seconds=1.0)
    runs = counter.start_many(9, "q")
    began = until_admitted(counter, 9)
    assert [run for _, run in began] == runs
    assert began[-1][0] - began[0][0] > 8 * 0.9 / 40


def test_a_rate_lets_begin_nothing_more_while_a_doorbell_is_unanswered(counter: Counter) -> None:
    counter.limit("q", rate_limit=20, rate_seconds=1.0)
    first, second = counter.start_many(2, "q")
    assert counter.admitted() == [first]
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        assert counter.admitted() == []
    counter.claim(first)
    assert [run for _, run in until_admitted(counter, 1)] == [second]


def test_a_rate_counts_all_keys_together(counter: Counter) -> None:
    counter.limit("q", rate_limit=1, rate_seconds=60.0)
    counter.start("q", concurrency_key="ann")
    counter.start("q", concurrency_key="bob")
    assert len(counter.admitted()) == 1
    assert counter.admitted() == []


def test_a_look_says_when_a_rate_lets_the_next_begin(counter: Counter) -> None:
    counter.limit("q", rate_limit=1, rate_seconds=30.0)
    counter.start_many(2, "q")
    counter.claim(counter.admitted()[0])
    again = counter.look().again_seconds
    assert again is not None
    assert 20.0 < again <= 30.0


def test_what_had_begun_costs_no_rate(counter: Counter) -> None:
    counter.limit("q", rate_limit=1, rate_seconds=60.0)
    parent = counter.start("q")
    counter.admitted()
    claim = counter.claim(parent)
    child = counter.child(claim, "q")
    counter.park(claim)
    assert counter.admitted() == [child]


@pytest.mark.parametrize("limit", [None, 1])
def test_a_delayed_run_is_admitted_when_its_time_has_come(counter: Counter, limit: int | None) -> None:
    counter.limit("q", limit)
    run = counter.start("q", delay=0.05)
    assert counter.admitted() == []
    assert not counter.can_be_claimed(run)
    assert [run_id for _, run_id in until_admitted(counter, 1)] == [run]


def test_a_delayed_run_takes_no_slot(counter: Counter) -> None:
    counter.limit("q", 1)
    counter.start("q", delay=600.0)
    now = counter.start("q")
    assert counter.admitted() == [now]


def test_delayed_runs_take_no_room_of_their_route(counter: Counter) -> None:
    for _ in range(counter.window + 1):
        counter.start(delay=600.0)
    assert counter.slots(counter.start()) == [None]


def debounced(counter: Counter, text: str, *, seconds: float = 600.0) -> str:
    return counter.start(debounce_key="k", input=f'"{text}"', delay=seconds)


def test_debounced_calls_collapse_into_one_run_with_the_last_input(counter: Counter) -> None:
    first = debounced(counter, "a")
    due = counter.run(first)["not_before"]
    assert debounced(counter, "b", seconds=900.0) == first
    run = counter.run(first)
    assert run["input"] == '"b"'
    assert run["not_before"] > due + 250


def test_a_debounced_run_that_is_claimed_takes_no_more_calls(counter: Counter) -> None:
    first = debounced(counter, "a", seconds=0.001)
    until_admitted(counter, 1)
    assert debounced(counter, "b") != first


def test_a_debounced_run_that_waits_for_a_slot_still_takes_the_last_input(counter: Counter) -> None:
    counter.limit("flow", 1)
    busy = counter.start()
    counter.claim(counter.admitted()[0])
    run = debounced(counter, "a", seconds=0.001)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while counter.run(run)["not_before"] is not None and time.monotonic() < deadline:
        counter.admitted()
    assert debounced(counter, "b") == run
    assert counter.run(run)["not_before"] is None
    assert counter.run(run)["input"] == '"b"'
    assert counter.run(busy)["input"] is None


BAD = [
    {"priority": 10},
    {"priority": -1},
    {"priority": True},
    {"priority": 1.5},
    {"delay_seconds": -1},
    {"delay_seconds": float("nan")},
    {"delay_seconds": float("inf")},
    {"delay_seconds": "5"},
    {"debounce_key": "k"},
    {"debounce_seconds": 1},
    {"debounce_key": "k", "debounce_seconds": 0},
    {"debounce_key": "k", "debounce_seconds": 1, "idempotency_key": "i"},
    {"debounce_key": "k", "debounce_seconds": 1, "delay_seconds": 1},
]


@pytest.mark.parametrize("given", BAD, ids=str)
def test_what_cannot_be_is_refused(given) -> None:
    with pytest.raises(ValueError, match=r"give|belong together|leave them out"):
        check_start(**given)


limits = st.builds(
    Limits,
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 9),
    st.just(1.0),
    st.booleans(),
)


@given(st.lists(limits, min_size=1, max_size=5))
def test_of_several_limits_of_one_queue_the_smallest_counts(declared) -> None:
    found = smallest_limits([("q", one) for one in declared])["q"]
    for name in ("concurrency_limit", "rate_limit"):
        given_limits = [getattr(one, name) for one in declared if getattr(one, name) is not None]
        assert getattr(found, name) == min(given_limits, default=None)
    assert found.hold_while_waiting == any(one.hold_while_waiting for one in declared)
