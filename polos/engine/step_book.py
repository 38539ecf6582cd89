"""What a run's code has asked for and what the journal holds for it, as far as this process knows."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping

from polos.engine.tasks import DurableFuture
from polos.errors import NonDeterminismError, StepExecutionError
from polos.journal.runs import Claim
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.step_names import shown

EXECUTED_HERE = frozenset({"run"})  # kinds whose rows may be there before they are executed


class StepBook:
    """The steps of one run: known, asked for, under way, and outcomes that are not delivered yet."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.seen_wakes = claim.wakes
        self.news = asyncio.Event()  # an outcome, a question, or the end of a task
        self._known: dict[
            str, StepRow
        ] = {}  # rows without delivered outcome, and all recorded ones on replay
        self._asked: dict[str, DurableFuture] = {}
        self._under_way: set[str] = set()  # names of rows without an outcome
        self._pausing: set[str] = set()  # names of steps executed here that wait for their next try
        self._cut_off: set[str] = set()  # names of rows that the end of the run closed, which is taken back
        self._unasked: set[str] = set()  # recorded names the code has not asked for yet
        self._undelivered: list[tuple[int, str]] = []
        self._complete_until = claim.seq  # every outcome up to here is known
        self._ahead: set[int] = set()  # seqs known beyond that
        self._child_names: dict[str, str] = {}  # by the step that started the child, on replay
        self._position = 0
        self._deviation: NonDeterminismError | None = None  # kept: user code may catch what it raised

    def _remember(self, step: StepRow) -> None:
        """Take a row over from an earlier attempt."""
        self._known[step.name] = step
        self._unasked.add(step.name)
        self._position = max(self._position, step.position + 1)
        if step.seq is None and step.status == StepStatus.FAILED:
            self._cut_off.add(step.name)
        elif step.seq is None:
            self._under_way.add(step.name)
        else:
            heapq.heappush(self._undelivered, (step.seq, step.name))
            self._complete_until = max(self._complete_until, step.seq)

    def agrees(self, *, seq: int, wakes: int, recorded: Mapping[str, int | None]) -> bool:
        """Whether the journal still holds all that was seen there; `recorded`: seqs by the names of steps."""
        return (
            seq >= self._complete_until
            and wakes >= self.seen_wakes
            and all(
                name in recorded and step.seq in {None, recorded[name]} for name, step in self._known.items()
            )
        )

    def _begins_here(self, name: str) -> bool:
        """Whether this process is to bring a step about: new, or one that only a coordinator goes on with."""
        known = self._known.get(name)
        if known is not None and (known.has_outcome or known.kind not in EXECUTED_HERE):
            return False
        self._under_way.discard(name)
        return True

    def _position_of(self, name: str) -> int:
        known = self._known.get(name)
        return self._next_position() if known is None else known.position

    def known(self, name: str) -> StepRow | None:
        """Return the journal's row of step `name`, with or without an outcome."""
        return self._known.get(name)

    def is_recorded(self, name: str) -> bool:
        """Whether the journal has a row for step `name`."""
        return name in self._known

    def record(self, step: StepRow) -> None:
        """Take note of an outcome, in whatever order outcomes become known."""
        if step.seq is None or ((known := self._known.get(step.name)) is not None and known.has_outcome):
            return
        self._known[step.name] = step
        self._under_way.discard(step.name)
        heapq.heappush(self._undelivered, (step.seq, step.name))
        self.scheduled(step.seq)

    def scheduled(self, seq: int) -> None:
        """Take note of a write of ours that has no outcome."""
        self._ahead.add(seq)
        while self._complete_until + 1 in self._ahead:
            self._complete_until += 1
            self._ahead.discard(self._complete_until)
        self.news.set()

    def completed_here(self, step: StepRow) -> None:
        """Take note of an outcome that this very process committed for the run: no need to read it."""
        known = self._known.get(step.name)
        if step.seq is None or step.seq <= self._complete_until or (known is not None and known.has_outcome):
            return  # read meanwhile, and its wake with it: counted twice, it would hide the next one
        self.seen_wakes += 1
        self.record(step)

    def begun(self, step: StepRow) -> None:
        """Take note of the row of a step that is executed here."""
        self._known[step.name] = step

    def pausing(self, name: str) -> None:
        """Take note that a step which is executed here waits for its next try."""
        self._under_way.add(name)
        self._pausing.add(name)
        self.news.set()

    def goes_on(self, name: str) -> None:
        """Take note that the wait is over."""
        self._under_way.discard(name)
        self._pausing.discard(name)

    def under_way(self, step: StepRow) -> None:
        """Take note of a step that was scheduled and has no outcome yet."""
        if not self._known.setdefault(step.name, step).has_outcome:
            self._under_way.add(step.name)

    def check_child(self, name: str, workflow: str) -> None:
        """Raise when step `name` is on record with a child of another workflow."""
        recorded = self._child_names.get(name, workflow)
        if recorded != workflow:
            raise self._deviated(
                f"Step {shown(name)!r} started {recorded!r}; the code now asks for {workflow!r}"
            )

    def _deviated(self, problem: str) -> NonDeterminismError:
        self._deviation = NonDeterminismError(problem)
        self.news.set()
        return self._deviation

    def is_where_it_failed(self) -> bool:
        """Whether a person lets the run go on that had ended, and nothing has got an outcome since."""
        until = self.claim.retried_seq
        seqs = (step.seq for step in self._known.values() if step.seq is not None)
        return until is not None and all(seq <= until for seq in seqs)

    def expects_more(self) -> bool:
        """Whether the journal holds steps that the code has not asked for yet."""
        return bool(self._unasked)

    def went_on_without(self, name: str) -> bool:
        """Whether an earlier attempt went on from here without step `name`: so does every later one."""
        return name not in self._known and self.expects_more()

    def _ask(self, name: str, kind: str) -> DurableFuture:
        if name in self._asked:
            raise StepExecutionError(
                f"Step key {shown(name)!r} was used twice in one run; every step needs a key of its own"
            )
        known = self._known.get(name)
        if known is not None and known.kind != kind:
            raise self._deviated(
                f"Step {shown(name)!r} was recorded as {known.kind!r}; the code now asks for it as {kind!r}"
            )
        self._unasked.discard(name)
        waiter = self._asked[name] = DurableFuture()
        self.news.set()
        return waiter

    def _is_replaying(self) -> bool:
        return bool(self._unasked) or bool(self._undelivered and self.claim.replays)

    def _next_position(self) -> int:
        self._position += 1
        return self._position - 1

    def waits_for_others(self) -> bool:
        """Whether code asked for a turn, child or wait that is under way."""
        return bool(self._awaited_names())

    def awaited_kinds(self) -> set[str]:
        """Return the kinds of the steps under way that the code waits for."""
        return {self._known[name].kind for name in self._awaited_names()}

    def _awaited_names(self) -> list[str]:
        asked = self._asked
        return [name for name in self._under_way if name in asked and not asked[name].done()]

    def has_open_steps(self) -> bool:
        """Whether turns, children or waits of the run are under way."""
        return bool(self._under_way)

    def has_turns_under_way(self) -> bool:
        """Whether a model is being called for the run."""
        return any(self._known[name].kind == "turn" for name in self._under_way)

    def left_over(self) -> list[str]:
        """Return recorded steps the code never asked for, once its body has ended."""
        return sorted(shown(name) for name in self._unasked)
