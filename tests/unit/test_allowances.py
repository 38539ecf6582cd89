"""Allowances played through, moment by moment: how many calls begin, how often callers must come back."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from polos.allowances import Allowance, Question, Verdict, answer, corrected, paused

TEN_PER_SECOND = 0.1


@dataclass
class Play:
    """Callers that come, come back when they are told to, though late, and begin."""

    cost: float = TEN_PER_SECOND
    burst: float = 0.0
    late: Callable[[], float] = lambda: 0.0
    state: Allowance = field(default_factory=Allowance)
    began: list[float] = field(default_factory=list)
    asked: int = 0
    _coming: list[tuple[float, int, float | None]] = field(default_factory=list)

    def comes(self, at: float, ticket: float | None = None) -> None:
        heapq.heappush(self._coming, (at, len(self._coming) + self.asked * 1_000_000, ticket))

    def until(self, end: float = float("inf")) -> Play:
        while self._coming and self._coming[0][0] < end:
            at, _, ticket = heapq.heappop(self._coming)
            self.asked += 1
            question = Question(self.cost, self.burst, ticket)
            self.state, found = answer(self.state, question, at)
            if found.verdict is Verdict.GO:
                self.began.append(at + found.seconds)
            else:
                assert found.seconds > 0
                self.comes(at + found.seconds + self.late(), found.ticket)
        return self

    def hold(self, until: float) -> None:
        """Let nobody come before: all workers were down."""
        waiting, self._coming = self._coming, []
        for at, _, ticket in waiting:
            self.comes(max(at, until), ticket)

    @property
    def most_in_a_second(self) -> int:
        began = sorted(self.began)
        return max(sum(1 for moment in began if 0 <= moment - first < 1 - 1e-6) for first in began)

    @property
    def took(self) -> float:
        return max(self.began) - min(self.began)


def crowd(play: Play, count: int, at: float = 1000.0) -> Play:
    for _ in range(count):
        play.comes(at)
    return play


def jitter(most: float) -> Callable[[], float]:
    rng = random.Random(7)
    return lambda: rng.uniform(0, most)


def test_a_thousand_callers_at_once_each_get_a_moment_of_their_own() -> None:
    play = crowd(Play(), 1000).until()
    assert play.most_in_a_second == 10
    assert play.took == pytest.approx(99.9)
    assert play.asked < 2 * 1000, "each asked, and came back once"


@pytest.mark.parametrize("late", [0.05, 0.3, 2.0])
def test_whoever_comes_late_breaks_no_limit_and_loses_little(late: float) -> None:
    play = crowd(Play(late=jitter(late)), 500).until()
    assert len(play.began) == 500
    assert play.most_in_a_second <= 10
    assert play.took < 50 * (1.25 if late < 1 else 1.5)
    assert play.asked < 6 * 500


def test_after_an_hour_without_workers_the_crowd_begins_as_slowly_as_ever() -> None:
    play = crowd(Play(late=jitter(0.2)), 1000).until(1010.0)
    before = len(play.began)
    play.hold(4600.0)
    play.until()
    assert len(play.began) == 1000
    assert play.most_in_a_second <= 10
    assert play.asked < 10 * 1000, "late callers are spread again, they do not storm"
    assert max(play.began) - 4600.0 < (1000 - before) * TEN_PER_SECOND * 1.3


def test_what_is_forgotten_lets_one_call_more_begin_and_no_crowd() -> None:
    play = crowd(Play(late=jitter(0.1)), 200).until(1005.0)
    play.state = Allowance()
    crowd(play, 200, at=1005.0).until()
    assert len(play.began) == 400
    assert play.most_in_a_second <= 11
    assert play.took < 40 * 1.25


def test_callers_slower_than_the_limit_never_wait() -> None:
    play = Play()
    for number in range(100):
        play.comes(1000.0 + 0.2 * number)
    assert play.until().asked == 100
    assert play.began == [pytest.approx(1000.0 + 0.2 * number) for number in range(100)]


def test_few_workers_for_many_tickets_are_no_reason_to_wait_longer() -> None:
    """Turns that wait for a slot come long after their moment: each begins when it comes."""
    play = crowd(Play(), 100).until(1000.001)
    tickets = [ticket for _, _, ticket in sorted(play._coming)]
    play._coming = []
    for number, ticket in enumerate(tickets):
        play.comes(1100.0 + number, ticket)  # one worker, a second for each call
    asked = play.asked
    play.until()
    assert play.asked - asked == len(tickets)


def test_a_pause_moves_everybody_who_waits() -> None:
    play = crowd(Play(), 100).until(1002.0)
    began = len(play.began)
    play.state = paused(play.state, 30.0, 1002.0)
    play.state = paused(play.state, 30.0, 1002.0)  # told twice
    play.until()
    after = sorted(play.began)[began:]
    assert min(after) >= 1032.0 - 0.5, "those that had begun to wait in place are on their way"
    assert len([moment for moment in after if moment < 1032.0]) <= 6
    assert max(after) < 1032.0 + 10.0
    assert play.most_in_a_second <= 11


def test_a_newcomer_waits_for_the_end_of_a_pause_once() -> None:
    state = paused(Allowance(), 60.0, 1000.0)
    state, found = answer(state, Question(0.1), 1001.0)
    assert (found.verdict, found.seconds) == (Verdict.WAIT, pytest.approx(59.0))
    _, found = answer(state, Question(0.1, ticket=found.ticket), 1060.0)
    assert found.verdict is Verdict.GO


def test_a_burst_makes_up_for_idle_time_only() -> None:
    play = crowd(Play(burst=0.5), 100).until()
    assert sum(1 for moment in play.began if moment < 1000.05) == 6
    assert play.most_in_a_second <= 10 + 5


def test_a_caller_that_would_wait_too_long_books_nothing() -> None:
    state = crowd(Play(), 100).until(1000.001).state
    after, found = answer(state, Question(0.1, longest=5.0), 1000.001)
    assert found.verdict is Verdict.REFUSED
    assert found.seconds == pytest.approx(10.0, abs=0.1)
    assert after.tail == state.tail


def test_a_correction_lets_the_next_begin_earlier_or_later() -> None:
    state, _ = answer(Allowance(), Question(10.0), 1000.0)
    assert answer(corrected(state, -8.0), Question(1.0), 1000.0)[1].seconds == pytest.approx(2.0)
    assert answer(corrected(state, 5.0), Question(1.0), 1000.0)[1].seconds == pytest.approx(15.0)


def test_what_a_process_knows_of_the_gate_holds_although_it_was_forgotten() -> None:
    _, found = answer(Allowance(), Question(0.1, held=0.3), 1000.0)
    assert (found.verdict, found.seconds) == (Verdict.GO, pytest.approx(0.3))
