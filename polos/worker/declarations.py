"""What the code of this worker declares: limits of queues, schedules, and triggers of events."""

from __future__ import annotations

from collections.abc import Iterable

from polos import serialization
from polos.cron import next_tick
from polos.journal.queues import Limits, declare_queue, smallest_limits
from polos.journal.schedules import NewSchedule, adopt_schedules, declare_schedule, withdraw_schedules
from polos.journal.statements import Unit
from polos.journal.triggers import NewTrigger, declare_trigger, declared_name, withdraw_triggers
from polos.journal.workers import Offer
from polos.registry import get_workflow
from polos.routes import Routes
from polos.settings import Settings
from polos.workflows import Workflow


def declarations(settings: Settings, routes: Routes, offered: Iterable[Offer], *, now: float) -> list[Unit]:
    """Return the units that make journal and code agree, for the definitions this worker offers.

    Each is to be committed by itself. `now` is the database's clock.
    """
    definitions = [found for _, name in sorted(offered) if (found := get_workflow(name)) is not None]
    declared = Declared(settings, routes, now)
    units = [*declared.queues(definitions)]
    units += [unit for definition in definitions for unit in declared.of(definition)]
    return [*units, *declared.withdrawals([definition.id for definition in definitions])]


class Declared:
    """Gathers what definitions declare."""

    def __init__(self, settings: Settings, routes: Routes, now: float) -> None:
        self._settings = settings
        self._routes = routes
        self._now = now
        self._schedules: list[str] = []
        self._triggers: list[str] = []

    def of(self, definition: Workflow) -> Iterable[Unit]:
        """Yield the units of one definition."""
        if definition.is_schedulable:
            yield self._adoption(definition)
        if definition.cron_schedule is not None:
            yield self._schedule(definition)
        if definition.trigger_on_event is not None:
            yield self._trigger(definition, definition.trigger_on_event)

    def queues(self, definitions: Iterable[Workflow]) -> Iterable[Unit]:
        """Yield the units of the queues that have limits."""
        limits = [(definition.queue_name, self._limits(definition)) for definition in definitions]
        settings = self._settings
        for name, smallest in smallest_limits(limits).items():
            if smallest != Limits():
                yield declare_queue(settings.project_id, settings.deployment_id, name, smallest)

    def _limits(self, definition: Workflow) -> Limits:
        queue = definition.declared_queue
        limit = queue.concurrency_limit or self._settings.default_concurrency_limit or None
        if definition.is_schedulable:
            limit = 1  # of one schedule: its runs do not overlap
        rate_seconds = None if queue.rate_limit is None else queue.rate_seconds
        return Limits(limit, queue.rate_limit, rate_seconds, queue.hold_while_waiting)

    def withdrawals(self, offered: list[str]) -> list[Unit]:
        """Return the units that deactivate what is not declared any more."""
        settings = self._settings
        return [
            withdraw(
                settings.project_id,
                deployment=settings.deployment_id,
                offered=serialization.dumps(offered),
                declared=serialization.dumps(declared),
                silence=settings.silence_limit_seconds,
            )
            for withdraw, declared in (
                (withdraw_schedules, self._schedules),
                (withdraw_triggers, self._triggers),
            )
        ]

    def _route(self, definition: Workflow) -> str:
        return self._routes.of_run(definition.id, definition.route)

    def _adoption(self, definition: Workflow) -> Unit:
        return adopt_schedules(
            self._settings.project_id,
            definition.id,
            deployment=self._settings.deployment_id,
            kind=definition.workflow_type,
            route=self._route(definition),
            silence=self._settings.silence_limit_seconds,
        )

    def _schedule(self, definition: Workflow) -> Unit:
        times = definition.cron_schedule
        assert times is not None, "asked for definitions that have one"
        new = NewSchedule(
            project=self._settings.project_id,
            workflow=definition.id,
            key=times.key,
            cron=times.cron,
            timezone=times.timezone,
            catch_up=times.catch_up,
            deployment=self._settings.deployment_id,
            kind=definition.workflow_type,
            route=self._route(definition),
            next_at=next_tick(times.cron, times.timezone, self._now),
            declared_by=self._settings.deployment_id,
        )
        self._schedules.append(new.id)
        return declare_schedule(new, silence=self._settings.silence_limit_seconds)

    def _trigger(self, definition: Workflow, topic: str) -> Unit:
        new = NewTrigger(
            project=self._settings.project_id,
            workflow=definition.id,
            topic=topic,
            deployment=self._settings.deployment_id,
            kind=definition.workflow_type,
            queue=definition.queue_name,
            route=self._route(definition),
            batch_size=definition.batch_size,
            batch_timeout_seconds=definition.batch_timeout_seconds,
            from_beginning=int(definition.from_beginning),
            declared_by=self._settings.deployment_id,
        )
        self._triggers.append(declared_name(new.workflow, new.topic))
        return declare_trigger(new, silence=self._settings.silence_limit_seconds)
