"""What a worker process executes runs with, in one argument, and the wake-up of whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Any, Protocol

from polos.allowances import FREE, Permit
from polos.clock import SYSTEM_CLOCK, Clock
from polos.dispatch import Dispatcher, Doorbell
from polos.engine.execution import Execution
from polos.engine.resources import Resources
from polos.journal.runs import READ_RUN, is_pending, run_record
from polos.journal.states import RunStatus
from polos.journal.writer import Journal
from polos.models import call
from polos.models.request import Chunk, ModelAnswer, ModelRequest
from polos.routes import Routes, turn_label
from polos.settings import Settings
from polos.types import Usage


class Nudges(Protocol):
    """Carries messages that only shorten waits."""

    def publish(self, channel: str, message: str) -> None:
        """Send soon, or drop."""


class Telling(Protocol):
    """Carries what happens in run trees to whoever reads along. Cannot fail, and nobody waits for it."""

    def is_watched(self, root_id: str) -> bool:
        """Whether somebody reads this tree."""

    def numbered(
        self, root_id: str, number: int, event: tuple[str, dict[str, Any]], *, keep: bool = False
    ) -> None:
        """Tell an event that is in the journal."""

    def live(
        self, root_id: str, event: tuple[str, dict[str, Any]], *, keep: bool = False, offset: int = 0
    ) -> None:
        """Tell an event that is not."""


class Slot(Protocol):
    """A worker's permission to execute, given back while a run only waits.

    Attributes:
        parks: A run that only waits is parked at once: nobody else can use the slot meanwhile.
    """

    @property
    def parks(self) -> bool:
        """See above."""

    def yield_(self) -> None:
        """Give it back; harmless when it is given back already."""

    async def retake(self) -> None:
        """Take it again, ahead of new messages."""

    async def widen(self, share: Share, *, patience_seconds: float) -> bool:
        """Take so many slots of the process; False when that many are not free within the patience."""

    def narrow(self) -> None:
        """Give back all slots but one."""


class Definition(Protocol):
    """What the engine needs of a workflow, agent or tool."""

    @property
    def id(self) -> str:
        """Its name in the journal."""

    @property
    def workflow_type(self) -> str:
        """``workflow``, ``agent`` or ``tool``."""

    def parse_payload(self, data: Any) -> Any:
        """Return JSON data as what the function takes; ValueError when it does not fit."""

    def payload_for_hooks(self, payload: Any) -> Any:
        """Return the payload as hooks see it."""

    def changed_payload(self, payload: Any, changes: dict[str, Any]) -> Any:
        """Return the payload as JSON data, with a hook's changes."""

    def build_state(self, data: Any) -> Any:
        """Return the run's state."""

    async def call(self, ctx: Any, payload: Any = None) -> Any:
        """Run the body."""


class Doorman(Protocol):
    """Admits pending runs; these calls only tell it where to look, and never block."""

    def claimed(self, route: str | None, queue: str | None) -> None:
        """A run was claimed here: `route`, if others of it are deferred; `queue`, if it has a slot there."""

    def is_limited(self, queue: str) -> bool:
        """Whether a queue had limits lately: its new runs are pending."""

    def look_at(self, queue: str, concurrency_key: str | None) -> None:
        """A slot may be free, or newly wanted."""


class NoDoorman:
    """Where workers elsewhere admit runs."""

    def claimed(self, route: str | None, queue: str | None) -> None:
        """Do nothing."""

    def is_limited(self, queue: str) -> bool:
        """Return that nothing is known."""
        return False

    def look_at(self, queue: str, concurrency_key: str | None) -> None:
        """Do nothing."""


class Models(Protocol):
    """Who answers the model calls of turns: the module `polos.models.call`, or a model of a test."""

    async def ready(self, request: ModelRequest) -> None:
        """Return once this call goes out at once."""

    async def generate(
        self,
        request: ModelRequest,
        *,
        before_send: Callable[[], Awaitable[None]] | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> ModelAnswer:
        """Answer one call, in one attempt; see `polos.models.call.generate`."""

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return what a call with these tokens costs in US dollars, None if nobody knows the price."""


class RateLimits(Protocol):
    """Says whether a model may be asked now."""

    async def ask(self, request: ModelRequest, ticket: float | None) -> Permit:
        """Return what a call may do; `ticket` is what an earlier answer gave the same turn."""

    def settle(self, permit: Permit, tokens: int | None) -> None:
        """Count what a call really took, None where nothing is known."""

    async def pause(self, request: ModelRequest, seconds: float) -> None:
        """Let nobody ask this model with this key for so long: its provider wants that."""


class NoRateLimits:
    """Where nothing bounds model calls."""

    async def ask(self, request: ModelRequest, ticket: float | None) -> Permit:
        """Let the call begin."""
        return FREE

    def settle(self, permit: Permit, tokens: int | None) -> None:
        """Do nothing."""

    async def pause(self, request: ModelRequest, seconds: float) -> None:
        """Do nothing."""


Share = Callable[[int], int]  # of all slots of a process, how many
Resolve = Callable[[str, str, str | None], Definition | None]


class NoSlot:
    """Where nothing bounds execution."""

    parks = False

    def yield_(self) -> None:
        """Do nothing."""

    async def retake(self) -> None:
        """Do nothing."""

    async def widen(self, share: Share, *, patience_seconds: float) -> bool:
        """Do nothing: what executes beside it is not known."""
        return True

    def narrow(self) -> None:
        """Do nothing."""


def run_channel(run_id: str) -> str:
    """Return the channel that tells of a run's end."""
    return f"run:{run_id}"


def worker_channel(worker_id: str) -> str:
    """Return the channel that nudges a worker."""
    return f"worker:{worker_id}"


def _nobody_cares(project: str, topic: str) -> None:
    return None


def _no_clock(seconds: float) -> None:
    """Leave it to sweepers, who look every second."""


@dataclass
class Runtime:
    """One worker process's hold on its surroundings.

    Attributes:
        routes: Where new runs and turns go.
        serves: The routes this worker consumes.
        resolve: Finds a definition by kind, name and the name of the caller.
        may_start: Returns once this worker may start a side effect: it has been heard of lately.
        published: Called with project and topic after an event was published to a topic of programs.
        look_in: Called when a run was parked for which something is due in so many seconds.
        models: Who answers model calls.
        rate_limits: Says when they may be made.
        clock: What time it is, and what is to be done later.
        executions: The runs this process owns, by id.
        turns: The turns it executes, by (run id, step name).
        claiming: Runs and turns whose claim is under way: a doubled doorbell must not claim twice.
        resources: What tools keep open in this process.
    """

    settings: Settings
    journal: Journal
    nudges: Nudges
    feed: Telling
    dispatcher: Dispatcher
    routes: Routes
    serves: Container[str]
    resolve: Resolve
    worker_id: str
    project: str
    deployment: str
    may_start: Callable[[], Awaitable[None]]
    published: Callable[[str, str], None] = _nobody_cares
    look_in: Callable[[float], None] = _no_clock
    models: Models = call
    rate_limits: RateLimits = field(default_factory=NoRateLimits)
    clock: Clock = SYSTEM_CLOCK
    executions: dict[str, Execution] = field(default_factory=dict)
    turns: dict[tuple[str, str], asyncio.Task[Any] | None] = field(default_factory=dict)
    claiming: set[tuple[str, str]] = field(default_factory=set)
    draining: bool = False
    doorman: Doorman = field(default_factory=NoDoorman)
    resources: Resources = field(default_factory=Resources)

    async def ring_if_queued(self, run_id: str) -> None:
        """Ring for a run if it waits to be claimed, and for no slot."""
        rows = await self.journal.read(READ_RUN, run=run_id)
        run = run_record(rows[0]) if rows else {}
        if run and run["status"] == RunStatus.QUEUED and run["ring_at"] is not None:
            await self.ring_run(run_id)

    def let_go(self, execution: Execution) -> None:
        """Own a run no more; another attempt of it may be here already."""
        if self.executions.get(execution.run_id) is execution:
            del self.executions[execution.run_id]

    async def wake(self, run_id: str, status: str | None, owner: str | None) -> None:
        """Tell whoever continues a run that something was completed for it."""
        if status == RunStatus.QUEUED:
            await self.ring_run(run_id)
        elif owner == self.worker_id and (execution := self.executions.get(run_id)) is not None:
            execution.look_again()
        elif owner is not None:
            self.nudges.publish(worker_channel(owner), run_id)

    async def ring_run(self, run_id: str) -> None:
        """Ring for a queued run of which only the id is at hand."""
        rows = await self.journal.read(READ_RUN, run=run_id)
        if rows:
            run = run_record(rows[0])
            if is_pending(run):
                self.doorman.look_at(run["queue"], run["concurrency_key"])
                return
            begun = run["attempt"] > 0 or bool(run["parent_id"])
            self.dispatcher.ring(Doorbell(run_id, run["name"], run["route"], run["deployment"], begun=begun))

    def ring_turn(self, run_id: str, step: str, agent_id: str, route: str, deployment: str) -> None:
        """Ring for a scheduled turn of an agent's run; `route` is the run's."""
        route = self.routes.of_turn(agent_id, route)
        self.dispatcher.ring(Doorbell(run_id, turn_label(agent_id), route, deployment, step=step, begun=True))

    def announce_end(self, run_id: str) -> None:
        """Tell whoever waits for the run that it has ended."""
        self.nudges.publish(run_channel(run_id), "ended")
