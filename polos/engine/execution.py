"""One run in memory: what its code asked for, what the journal holds, and the delivery of outcomes in order.

Outcomes reach the code one at a time, in the order of their `seq`, with all of the run's tasks suspended in
between, on first pass and on replay alike: races are decided the same way every time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from polos.clock import SYSTEM_CLOCK, Clock
from polos.engine.alarms import Alarms
from polos.engine.running_time import RunningTime
from polos.engine.signals import Fenced
from polos.engine.step_book import StepBook
from polos.engine.taking_back import taken_back
from polos.engine.tasks import DurableFuture, Task, only_waits, run_tasks, settled, waits_indirectly
from polos.errors import NonDeterminismError
from polos.journal.batches import READ_CHILD_NAMES
from polos.journal.memory import Remembered
from polos.journal.runs import Claim
from polos.journal.statements import Row, Rows, Statement, Unit
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import READ_NEWS, READ_STEPS, StepRow, news_from, step_from
from polos.journal.waits import READ_REMAINING
from polos.journal.writer import Journal
from polos.step_names import shown


class Execution(StepBook):
    """A run this process owns. All methods are called on the loop."""

    def __init__(
        self, claim: Claim, journal: Journal, *, worker_id: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(claim)
        self.journal = journal
        self.worker_id = worker_id
        self.tasks: set[Task] = set()
        self.closing: BaseException | None = None
        self.running = RunningTime(claim.run_timeout_seconds, claim.running_seconds, clock)
        self.waiting_since: float | None = None  # loop time since which only the journal can go on
        self.streams = False  # somebody asked for what happens here as it happens
        self.hold_back = False  # the worker ends: start no new step
        self.is_held_back = False  # a step was not started for that reason
        self.is_stale = False  # somebody completed something for the run: read it
        self.was_rung = False  # a doorbell came while it was here
        self.has_progressed = False  # something was recorded since the claim
        self.moving = asyncio.Lock()  # held to deliver an outcome or to park: never both
        self.alarms = Alarms(clock)
        self.usage_limits = claim.usage_limits  # what the runs below it are limited to, JSON text
        self.patches: dict[str, bool] = {}  # what was decided in this pass
        self.remembered: Remembered | None = None  # what it leaves in the memory of its session, as of now
        self._reads = 0  # by code that goes on as soon as it is answered
        self._new_steps: list[DurableFuture] = []  # steps that wait until all recorded outcomes are delivered

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.claim.id

    async def load(self) -> None:
        """Read the journal of earlier attempts."""
        if not self.claim.replays:
            return
        for row in await self.journal.read(READ_STEPS, run=self.run_id):
            self._remember(step_from(row))
        if any(step.child_id is not None for step in self._known.values()):
            rows = await self.journal.read(READ_CHILD_NAMES, run=self.run_id)
            self._child_names = {str(row[0]): str(row[1]) for row in rows}

    # -- what steps call

    async def read(self, statement: Statement, **params: object) -> Rows:
        """Read for code that goes on at once. No outcome is delivered before: their order would be chance."""
        self._reads += 1
        try:
            return await self.journal.read(statement, **params)
        finally:
            self._reads -= 1

    def check_open(self) -> None:
        """Raise when the run is being put away: nothing may be written or started any more."""
        if self.closing is not None:
            raise self.closing

    async def commit(self, unit: Unit) -> int:
        """Commit a unit that begins with this run's fence; return the `seq` it answers with.

        Raises:
            Fenced: The run is no longer ours.
        """
        return int((await self.answer(unit))[0])

    async def answer(self, unit: Unit) -> Row:
        """Commit a unit that begins with this run's fence; return what it answers.

        Raises:
            Fenced: The run is no longer ours.
        """
        self.check_open()
        answer = await self.journal.do(unit)
        if not answer:
            self.look_again()  # should the code swallow what is raised here
            raise Fenced(self.run_id)
        return answer[0]

    async def outcome(self, name: str, kind: str, begin: Callable[[int], Awaitable[None]]) -> StepRow:
        """Return the outcome of step `name`: the recorded one, or the one `begin` brings about.

        `begin` gets the step's position and either executes the step and calls `record`, or schedules it and
        calls `scheduled`.

        Raises:
            StepExecutionError: The name was asked for before in this pass.
            NonDeterminismError: The journal has another kind of step under this name.
        """
        self.check_open()
        while True:
            waiter = self._ask(name, kind)
            await self._let_go_on(name)
            if self._begins_here(name):
                await self._caught_up()
            if self._begins_here(name):
                if self.hold_back:
                    await self.held_back()
                await begin(self._position_of(name))
            step: StepRow | None = await waiter
            if step is not None:
                return step
            del self._asked[name]  # it was taken back: asked for again, it is begun anew

    async def outcomes(
        self, kinds: Mapping[str, str], begin: Callable[[dict[str, int]], Awaitable[None]]
    ) -> list[StepRow]:
        """Return the outcomes of steps that are asked for at once, given as name and kind, in that order.

        `begin` gets the positions of those that do not exist yet, and brings them all about. One task waits
        for all of them, however many there are.

        Raises:
            As `outcome`.
        """
        self.check_open()
        waiters = [self._ask(name, kind) for name, kind in kinds.items()]
        for name in kinds:
            await self._let_go_on(name)
        if any(name not in self._known for name in kinds):
            await self._caught_up()
        if missing := [name for name in kinds if name not in self._known]:
            if self.hold_back:
                await self.held_back()
            await begin({name: self._next_position() for name in missing})
        return [await waiter for waiter in waiters]

    async def _let_go_on(self, name: str) -> None:
        """Let a step go on that was cut off when its run ended, which somebody has taken back."""
        if name in self._cut_off:
            self._cut_off.discard(name)
            await self._take_back(self._known[name])

    async def _take_back(self, step: StepRow) -> None:
        again = await taken_back(self, step)
        if again is not None:
            self._known[step.name] = again
            self._under_way.add(step.name)
        else:
            del self._known[step.name]
            waiter = self._asked[step.name]
            if step.has_outcome and not waiter.done():
                waiter.set_result(None)

    def _was_unhandled(self, step: StepRow) -> bool:
        """Whether this recorded failure ended the run that a person retries: nothing was begun after it.

        Its outcome is about to be delivered, and the code has asked for all that is recorded.
        """
        until = self.claim.retried_seq
        is_old = until is not None and step.seq is not None and step.seq <= until
        return is_old and step.status == StepStatus.FAILED and not self._unasked

    async def held_back(self) -> None:
        """Keep a step from going on here, without an outcome: the worker ends and hands the run back."""
        self.is_held_back = True
        await DurableFuture()

    async def _caught_up(self) -> None:
        """Wait until all recorded outcomes are delivered: a replay starts nothing new before."""
        if not self._is_replaying():
            return
        turn = DurableFuture()
        self._new_steps.append(turn)
        self.news.set()
        await turn

    # -- delivery

    def look_again(self) -> None:
        """Take note that others may have completed something for the run."""
        self.is_stale = True
        self.news.set()

    async def refresh(self) -> None:
        """Read what others completed for the run.

        Raises:
            Fenced: The run is no longer ours.
        """
        self.is_stale, restarts = False, self.journal.restarts
        news = news_from(await self.journal.read(READ_NEWS, run=self.run_id, after=self._complete_until))
        if (news.attempt, news.status, news.owner) != (
            self.claim.attempt,
            RunStatus.RUNNING.value,
            self.worker_id,
        ):
            raise Fenced(self.run_id, cancelled=news.status == RunStatus.CANCELLED)
        if restarts != self.journal.restarts:
            self.look_again()  # what was read may be lost
            return
        for step in news.outcomes:
            self.record(step)
        self.seen_wakes = max(self.seen_wakes, news.wakes)
        self._complete_until = max(self._complete_until, news.seq)
        self._ahead = {known for known in self._ahead if known > self._complete_until}
        if self._pausing:
            await self._end_pauses()

    async def _end_pauses(self) -> None:
        """Let those tries begin whose time has come by the database's clock, though not by ours.

        A sweeper has said so, once: parked now, the run would wait for ever.
        """
        rows = await self.journal.read(READ_REMAINING, run=self.run_id)
        for name in self._pausing - {row[0] for row in rows}:
            self.alarms.go_off(name)

    async def deliver_next(self) -> bool:
        """Hand the next outcome to the code; False when there is nothing to hand over now."""
        if self._deviation is not None:
            raise self._deviation
        if self.is_stale:
            await self.refresh()
        await settled(self.tasks, lambda: self._reads > 0)
        if not self._undelivered:
            return self._let_new_steps_start()
        seq, name = self._undelivered[0]
        if seq > self._complete_until:
            await self.refresh()
            seq, name = self._undelivered[0]
        waiter = self._asked.get(name)
        if waiter is None:
            self._check_deviation()
            return False
        heapq.heappop(self._undelivered)
        self.has_progressed |= seq > self.claim.seq
        if self._was_unhandled(self._known[name]):
            await self._take_back(self._known[name])
        elif not waiter.done():
            waiter.set_result(self._known[name])
        return True

    def _let_new_steps_start(self) -> bool:
        if self._unasked:
            self._check_deviation()
            return False
        waiting, self._new_steps = self._new_steps, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
        return bool(waiting)

    def _check_deviation(self) -> None:
        """Raise when recorded steps were not asked for and never will be: the code has changed.

        A step was asked for in an earlier pass by outcomes that are all delivered now, so once every task
        waits for the journal, what was not asked for stays so.
        """
        if all(task.done() for task in self.tasks) or not self.only_waits():
            return  # how the code ended says more
        asked = sorted(shown(name) for name, waiter in self._asked.items() if not waiter.done())
        raise NonDeterminismError(
            f"The journal holds steps that the code no longer asks for: {self.left_over()}; "
            f"it now asks for {asked}. Deploy code that asks for them, then: polos runs unblock {self.run_id}"
        )

    def only_waits(self) -> bool:
        """Whether nothing but the journal can make the run go on."""
        return only_waits(self.tasks)

    def waits_indirectly(self) -> bool:
        """Whether the code awaits, perhaps through locks and queues of its own, nothing but the journal."""
        return waits_indirectly(self.tasks)

    def next_alarm_seconds(self) -> float | None:
        """Return in how many seconds the first of the steps that the code waits for is due."""
        known = [self.alarms.seconds_until(name) for name in self._awaited_names()]
        return min((seconds for seconds in known if seconds is not None), default=None)

    def waiting(self, only_waits: bool = True) -> AbstractContextManager[None]:
        """Let the run's time stand still inside the block if it only waits, for anything but a model."""
        return self.running.paused() if only_waits and not self.has_turns_under_way() else nullcontext()

    def has_ended(self) -> bool:
        """Whether no task of the code is left that could still ask for a step."""
        return all(task.done() for task in self.tasks)

    def check_all_asked_for(self, error: BaseException | None) -> None:
        """Return if the code, which ended with `error` or without, has asked for all that is recorded.

        Raises:
            NonDeterminismError: It has not, and never will.
        """
        if self.left_over() and self.has_ended() and not isinstance(error, NonDeterminismError):
            raise NonDeterminismError(
                f"The code ended without asking for steps the journal holds: {self.left_over()}"
            ) from error

    # -- its tasks

    def start(self, body: Callable[[], Awaitable[Any]]) -> Task:
        """Start the run's body as its first task."""

        async def main() -> Any:
            return await body()

        token = run_tasks.set(self.tasks)
        try:
            task: Task = asyncio.get_running_loop().create_task(main(), name=f"run {self.claim.name}")
        finally:
            run_tasks.reset(token)
        task.add_done_callback(lambda _: self.news.set())
        return task

    async def put_away(self, reason: BaseException, *, patience_seconds: float) -> None:
        """Cancel the run's tasks and wait for them; from now on every `ctx` call raises `reason`."""
        if self.closing is None:
            self.closing = reason
        tasks = set(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=patience_seconds)
            for task in done:
                if not task.cancelled():
                    task.exception()  # taken note of: how a discarded task ended says nothing
