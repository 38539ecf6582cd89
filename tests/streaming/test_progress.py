"""What a reader is given of what it hears: each thing once, whatever comes twice, late, early or never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polos import event_data as events
from polos.streaming.cursor import Cursor, Place, Position
from polos.streaming.feed import Entry, entry_from
from polos.streaming.progress import Hole, Progress, Told

RUN = "5a0f6f6e-1111-4222-8333-444455556666"
WHERE = events.metadata(RUN, "speaker")
WORDS = ("one ", "two ", "three ", "four ")


def delta(index: int, attempt: int = 1, *, step: int = 1, position: str = "") -> Entry:
    offset = sum(len(word) for word in WORDS[:index])
    event = events.text_delta(step, index, WORDS[index], attempt, WHERE)
    return Entry(*event, number=0, at=1.0 + index / 100, offset=offset, position=position)


def start(attempt: int = 1) -> Entry:
    return Entry(*events.stream_started(1, attempt, WHERE), number=0, at=1.0)


def turn_end(number: int = 1, attempt: int = 1, **answer: Any) -> Entry:
    given = {"content": "".join(WORDS), "tool_calls": [], **answer}
    event = events.turn_finished("$turn:1", given, WHERE, streamed=True, attempt=attempt, error=None)
    return Entry(*event, number=number, at=2.0)


def begin(number: int = 1) -> Entry:
    return Entry(*events.run_started("agent", None, WHERE), number=number, at=0.5)


def take(progress: Progress, *entries: Entry) -> list[Told]:
    return [told for entry in entries for told in progress.take(entry)]


def text(told: list[Told]) -> str:
    return "".join(event.data["content"] for event in told if event.type == "text_delta")


def test_what_comes_twice_is_given_once() -> None:
    progress = Progress(Cursor())
    heard = [begin(), begin(), start(), start(), delta(0), delta(0), delta(1), delta(0), turn_end(2)]
    told = take(progress, *heard, turn_end(2))
    assert [event.type for event in told] == [
        "agent_start",
        "stream_start",
        "text_delta",
        "text_delta",
        "text_delta",
        "step_finish",
    ]
    assert text(told) == "".join(WORDS), "the end completes what was not heard"


def test_an_event_ahead_of_its_number_is_refused_until_the_journal_was_read() -> None:
    progress = Progress(Cursor())
    with pytest.raises(Hole):
        take(progress, turn_end(2))
    assert progress.number == 0
    assert len(take(progress, begin(), turn_end(2))) > 1


def test_an_event_too_large_to_be_told_is_read_from_the_journal() -> None:
    with pytest.raises(Hole):
        take(Progress(Cursor()), Entry(None, {}, 1, 1.0))


def test_after_lost_pieces_the_rest_comes_with_the_end() -> None:
    progress = Progress(Cursor())
    told = take(progress, start(), delta(0), delta(2), delta(3))
    assert text(told) == WORDS[0]
    assert text(take(progress, turn_end())) == "".join(WORDS[1:])


def test_a_second_attempt_voids_the_first_and_late_pieces_of_it() -> None:
    progress = Progress(Cursor())
    told = take(progress, start(), delta(0), delta(1), start(2), delta(2), delta(0, 2), delta(1, 2))
    assert [event.type for event in told] == [
        "stream_start",
        "text_delta",
        "text_delta",
        "stream_reset",
        "stream_start",
        "text_delta",
        "text_delta",
    ]
    assert told[3].data["attempt"] == 2


def test_an_attempt_nobody_heard_of_is_given_whole() -> None:
    progress = Progress(Cursor())
    take(progress, start(), delta(0))
    told = take(progress, turn_end(attempt=3))
    assert [event.type for event in told] == ["stream_reset", "stream_start", "text_delta", "step_finish"]
    assert text(told) == "".join(WORDS)


def test_pieces_after_the_end_are_late() -> None:
    progress = Progress(Cursor())
    take(progress, turn_end())
    assert take(progress, delta(3), start(), delta(0, 2)) == []


def test_tool_calls_that_were_not_heard_come_with_the_end() -> None:
    calls = [{"id": name, "call_id": name} for name in ("a", "b")]
    progress = Progress(Cursor())
    heard = Entry(*events.tool_call(1, 0, calls[0], 1, WHERE), number=0, at=1.0)
    told = take(progress, start(), heard, turn_end(content=None, tool_calls=calls))
    assert [event.data["tool_call"]["id"] for event in told if event.type == "tool_call"] == ["a", "b"]


def test_a_reader_that_goes_on_where_a_cursor_says_gets_only_the_rest() -> None:
    first = Progress(Cursor())
    told = take(first, start(), delta(0), delta(1))
    resumed = Progress(Cursor.parse(str(told[-1].cursor)))
    assert text(take(resumed, delta(0), delta(1), delta(2))) == WORDS[2]
    assert text(take(resumed, turn_end())) == WORDS[3]


def test_a_reader_that_resumes_after_everything_was_lost_gets_only_the_rest() -> None:
    told = take(Progress(Cursor()), start(), delta(0))
    resumed = Progress(Cursor.parse(str(told[-1].cursor)))
    rest = take(resumed, delta(3), turn_end())
    assert [event.type for event in rest] == ["text_delta", "step_finish"]
    assert text(rest) == "".join(WORDS[1:])


def test_a_reader_that_begins_in_the_middle_is_not_given_the_beginning() -> None:
    progress = Progress(Cursor())
    progress.skip_to(0, Position(1000))
    progress.trusts_start = True
    assert text(take(progress, delta(2), delta(3))) == "".join(WORDS[2:])
    assert [event.type for event in take(progress, turn_end())] == ["step_finish"]


def test_sequence_ids_grow_whatever_clocks_say() -> None:
    progress = Progress(Cursor())
    late, early = delta(0, position="5000-1"), delta(1, position="4000-7")
    numbers = [told.cursor.sequence_id for told in take(progress, late, early, delta(2, position="5000-2"))]
    assert numbers == sorted(set(numbers))
    last = Cursor.parse(str(progress.cursor))
    assert Progress(last).cursor.sequence_id == numbers[-1]


def test_a_step_that_nobody_saw_begin_begins_before_it_ends() -> None:
    end = Entry(*events.step_finished("charge", 1, WHERE), number=0, at=1.0)
    assert [told.type for told in take(Progress(Cursor()), end)] == ["step_start", "step_finish"]
    again = Progress(Cursor(1, Position(5)))
    assert [told.type for told in take(again, end)] == ["step_finish"], "it may have been told before"


def test_cursors_are_read_back_as_they_were_written() -> None:
    for cursor in (
        Cursor(),
        Cursor(3, Position(12, 4)),
        Cursor(3, Position(12, 4), None, 7),
        Cursor(3, Position(12, 4), Place("5a0f6f6e", 2, 1, 99), 7),
    ):
        assert Cursor.parse(str(cursor)) == cursor


def test_entries_are_one_line_and_read_back() -> None:
    entry = Entry("note", {"text": "two\nlines\u2028three"}, 7, 1.5, 3)
    assert "\n" not in entry.line()
    assert entry_from(entry.line(), "5-1") == Entry(
        "note", {"text": "two\nlines\u2028three"}, 7, 1.5, 3, "5-1"
    )


def test_who_drops_before_the_end_of_a_completed_turn_still_gets_it() -> None:
    """What is told on the occasion of an entry does not stand for the entry."""
    end = replace(turn_end(), position="9000-0")
    told = take(Progress(Cursor()), replace(start(), position="8000-0"), end)
    assert [event.type for event in told] == ["stream_start", "text_delta", "step_finish"]
    for event in told[:-1]:
        resumed = Progress(event.cursor)
        assert event.cursor.position < Position(9000)
        assert take(resumed, end)[-1].type == "step_finish"
    voided = take(Progress(told[0].cursor), replace(delta(0, 2), position="8500-0"))
    assert all(event.cursor.position < Position(8500) for event in voided if event.type == "stream_reset")
