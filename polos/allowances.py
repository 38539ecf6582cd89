"""What a provider lets through of one model with one key, as a clock that all workers share.

An *allowance* has a time of its own, which runs behind the real one by `lag`: it stands still while the
provider wants a pause, and is set back when more callers are there than may begin. Whoever must wait draws a
*ticket*, a moment in that time, once: thousands of waiting callers each get their own moment, and all of them
move when the clock stands still. Whoever's moment has come passes the *gate*, which lets calls begin one by
one, in real time, so that the limit holds however late callers come and whatever was forgotten meanwhile.

The same is written in Lua for Redis, in `polos.streaming.allowances`: tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from polos.model_limits import ModelLimit

PATIENCE_SECONDS = 0.5  # a call that begins so soon is waited for in place: coming back costs more
KEPT_SECONDS = 600.0  # after the last moment that somebody waits for; then an allowance is forgotten


class Verdict(StrEnum):
    """What whoever asks may do."""

    GO = "go"  # begin, in `seconds`
    WAIT = "wait"  # come back in `seconds`, with the ticket
    REFUSED = "refused"  # it would have to wait longer than it wants to; nothing was booked


@dataclass(frozen=True)
class Allowance:
    """The state of one. Real times are seconds since the epoch, by the clock of whoever keeps it.

    Attributes:
        gate: Real time before which no call begins.
        tail: The next free ticket.
        lag: How far its own time is behind the real one.
        paused: Real time until which the provider wants no calls.
    """

    gate: float = 0.0
    tail: float = 0.0
    lag: float = 0.0
    paused: float = 0.0


@dataclass(frozen=True)
class Question:
    """May a call begin?

    Attributes:
        cost: Seconds that the call takes of the allowance.
        burst: Seconds that may be made up for.
        ticket: The moment that was drawn before, None at first.
        longest: Seconds that a newcomer would wait at most.
        held: Seconds for which the caller knows that none may begin: counts where all was forgotten.
        earliest: Seconds before which it does not begin, for others that count say so.
    """

    cost: float
    burst: float = 0.0
    ticket: float | None = None
    longest: float = float("inf")
    held: float = 0.0
    earliest: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What whoever asked may do; `held` is how long no other call may begin."""

    verdict: Verdict
    seconds: float
    ticket: float | None = None
    held: float = 0.0


@dataclass(frozen=True)
class Permit:
    """What a model call may do, and what was counted for it.

    Attributes:
        name: Of the allowance; empty where nothing is counted.
        limit: That it keeps to, if there is one.
        cost: Seconds that were counted.
        in_journal: Whether the journal has counted them, too or alone.
    """

    answer: Answer
    name: str = ""
    limit: ModelLimit | None = None
    cost: float = 0.0
    in_journal: bool = False


FREE = Permit(Answer(Verdict.GO, 0.0))


def answer(state: Allowance, question: Question, now: float) -> tuple[Allowance, Answer]:
    """Return what `question` comes to at the real time `now`, and the state after it."""
    if not state.gate:
        state = replace(state, gate=now + question.held)
    ticket = question.ticket
    if ticket is None:
        clock = max(now, state.paused) - state.lag
        ticket = max(clock, state.tail - question.burst)
        if ticket + state.lag - now > question.longest:
            return state, Answer(Verdict.REFUSED, ticket + state.lag - now)
        state = replace(state, tail=max(state.tail, clock) + question.cost)
    wait = ticket + state.lag - now
    if wait > PATIENCE_SECONDS:
        return state, Answer(Verdict.WAIT, wait, ticket)
    start = max(now, now + wait, now + question.earliest, state.gate - question.burst, state.paused)
    if start - now > PATIENCE_SECONDS:  # more are here than may begin: all tickets move
        state = replace(state, lag=max(state.lag, start - ticket))
        return state, Answer(Verdict.WAIT, ticket + state.lag - now, ticket)
    state = replace(state, gate=max(state.gate, start) + question.cost)
    return state, Answer(Verdict.GO, start - now, ticket, max(state.gate - question.burst - now, 0.0))


def paused(state: Allowance, seconds: float, now: float) -> Allowance:
    """Return the state after the provider has asked for a pause of `seconds`."""
    until = now + seconds
    longer = max(until - max(state.paused, now), 0.0)
    return replace(state, paused=max(state.paused, until), lag=state.lag + longer)


def corrected(state: Allowance, seconds: float) -> Allowance:
    """Return the state after a call took so many seconds more of it than was thought, or less."""
    return replace(state, gate=state.gate + seconds, tail=state.tail + seconds)
