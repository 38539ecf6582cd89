"""Whether anything was done twice, by records polos does not write: the tools' ledger, the model's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from polos.demo.ledger import FINISHED, STARTED, Entry, finished_calls


@dataclass(frozen=True)
class Evidence:
    """What is known at the end.

    Attributes:
        status: Of the agent's run.
        attempts: How many workers have claimed the run, one after the other.
        killed: Process id of the worker that was killed, None when none was.
        ledger: What the tools wrote.
        calls: How many tool calls the recorded answers of the model ask for.
        turns: For each recorded model call, how many of its tries were not answered with an error.
        requests: Fingerprints of all requests in the model server's log; None when the server is not ours.
    """

    status: str
    attempts: int
    killed: int | None
    ledger: Sequence[Entry]
    calls: int
    turns: Sequence[int]
    requests: Sequence[str] | None


@dataclass(frozen=True)
class Proof:
    """What was counted, in sentences, and all that is wrong with it."""

    findings: list[str]
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def prove(evidence: Evidence) -> Proof:
    """Return whether the run was finished by another worker without repeating what had been done."""
    problems = [*_run_problems(evidence), *_tool_problems(evidence), *_model_problems(evidence)]
    return Proof([_tools_found(evidence), _models_found(evidence)], problems)


# -- the run


def _run_problems(evidence: Evidence) -> Iterable[str]:
    if evidence.status != "completed":
        yield f"the run is {evidence.status}, not completed"
    if evidence.killed is None:
        yield "no worker was killed: there was no moment with finished tools and running ones"
    elif evidence.attempts < 2:
        yield "the run was not taken over by another worker"


# -- tools


def _tool_problems(evidence: Evidence) -> Iterable[str]:
    ledger = evidence.ledger
    finishes = Counter(entry.call for entry in ledger if entry.event == FINISHED)
    cities = {entry.call: entry.city for entry in ledger}
    if len(finishes) != evidence.calls:
        yield f"the model asked for {evidence.calls} tool calls, but {len(finishes)} finished"
    for call in finished_calls(list(ledger)):
        if finishes[call] > 1:
            yield f"get_weather {cities[call]!r} finished {finishes[call]} times"
        elif _started_after_its_finish(ledger, call):
            yield f"get_weather {cities[call]!r} started again after it had finished"
    for call in {entry.call for entry in ledger} - set(finishes):
        yield f"get_weather {cities[call]!r} started and never finished"


def _started_after_its_finish(ledger: Sequence[Entry], call: str) -> bool:
    events = [entry.event for entry in ledger if entry.call == call]
    return STARTED in events[events.index(FINISHED) :]


def _tools_found(evidence: Evidence) -> str:
    started = sum(entry.event == STARTED for entry in evidence.ledger)
    finished = sum(entry.event == FINISHED for entry in evidence.ledger)
    return (
        f"Tools, by their own ledger: {evidence.calls} calls, started {started} times, finished {finished} "
        f"times; {started - finished} interrupted before the end and started again; "
        f"{_repeated(evidence.ledger)}."
    )


def _repeated(ledger: Sequence[Entry]) -> str:
    repeated = [call for call in finished_calls(list(ledger)) if _started_after_its_finish(ledger, call)]
    return f"{len(repeated)} finished ones ran twice" if repeated else "no finished one ran twice"


# -- the model


def _model_problems(evidence: Evidence) -> Iterable[str]:
    if not evidence.turns:
        yield "no model call was recorded"
    if evidence.requests is None:
        if sum(evidence.turns) != len(evidence.turns):
            yield f"the journal has {sum(evidence.turns)} model calls for {len(evidence.turns)} answers"
        return
    requests, turns = len(evidence.requests), len(evidence.turns)
    if repeated := requests - len(set(evidence.requests)):
        yield f"{repeated} model calls were made again"
    if requests != turns:
        yield f"the model server got {requests} requests for {turns} recorded answers"


def _models_found(evidence: Evidence) -> str:
    turns = len(evidence.turns)
    if evidence.requests is None:
        return f"Model, by the journal: {turns} answers recorded, {sum(evidence.turns)} calls made."
    repeated = len(evidence.requests) - len(set(evidence.requests))
    again = f"{repeated} recorded calls were made again" if repeated else "no recorded call was made again"
    return (
        f"Model, by the server's request log: {len(evidence.requests)} requests for {turns} recorded "
        f"answers; {again}."
    )
