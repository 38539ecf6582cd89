"""Which scenarios there are, how large they are, and the setting they share."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from answer_scenario import SETTINGS as ASKING
from answer_scenario import answers_while_down
from arena import Arena, ModelOf, Plan, Report, open_arena
from broker_kinds import BROKERS, RABBITMQ, REDIS
from broker_scenarios import broker_away, broker_frozen, delivery_limit
from clock_skew import SETTINGS as SKEWED
from clock_skew import clock_skew, clocks_apart
from clocks import why_no_clocks
from contention import contention
from disks import why_no_disk
from event_scenario import SETTINGS as READ
from event_scenario import event_races
from fuzz.model import scripted_model
from fuzz.scenario import random_programs
from hold_scenario import SETTINGS as HELD
from hold_scenario import cancelled_anywhere, held_model
from host_scenarios import latency, partitions, slow_links, vanishing_servers
from lag_scenarios import lagging_commits
from late_messages import behind_holdback, late_messages
from long_turns import GRACE_SECONDS, SHORT_GRACE_SECONDS, deployments, hasty_deployments, outage
from network import why_not
from oracles import Shape
from places import (
    Ground,
    MakeSite,
    behind_pooler,
    lagging_postgres,
    new_database,
    own_database,
    own_postgres,
    several_hosts,
)
from poison import SETTINGS as POISONED
from poison import bystanders
from pooler import why_no_pooler
from pooler_scenarios import pooled
from queue_scenarios import SETTINGS as QUEUED
from queue_scenarios import fair_shares, killed_holders
from rates import SETTINGS as LIMITED
from rates import shared_rate
from scarcity import QUIET, on_small_disk, quiet_scarcity, scarcity
from scenarios import (
    DRAIN_SECONDS,
    blocked_loop,
    database_restarts,
    every_message_thrice,
    flush,
    kill_loop,
    pauses_across_downtime,
    rolling_restart,
    zombies,
)
from soak import SETTINGS as SOAKED
from soak import soak
from storms import SETTINGS as CANCELLED
from storms import cancel_storm
from tick_scenario import SETTINGS as TICKING
from tick_scenario import missed_ticks
from week_model import paced_model
from week_program import CHAINS

DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Scenario:
    """A scenario with its sizes: `short` is part of the test command, `long` a command of its own."""

    name: str
    play: Callable[[Arena], Awaitable[None]]
    short: Plan
    long: Plan
    settings: Mapping[str, str] = field(default_factory=dict)
    databases: tuple[str, ...] = DATABASES
    brokers: tuple[str, ...] = BROKERS
    site: MakeSite = new_database
    needs: Callable[[], str] = str  # says why it cannot be played on this machine
    model_of: ModelOf = paced_model

    @property
    def needs_week(self) -> bool:
        """Whether it plays the week's programs, so that their references are wanted."""
        return self.model_of is paced_model

    @property
    def key(self) -> str:
        """Its short name."""
        return self.name.partition(" ")[0]

    def why_not(self, broker: str) -> str:
        """Return why it cannot be played over this broker or on this machine; empty where it can."""
        if broker not in self.brokers:
            return f"it is about {' and '.join(self.brokers)}"
        return self.needs()


HOSTS: dict[str, Any] = {
    "databases": ("postgresql",),
    "brokers": (REDIS,),
    "site": several_hosts,
    "needs": why_not,
}
NO_POISON = {"POLOS_MAX_CRASHES": "50"}  # who is killed by chance three times in a row is nobody's murderer
SCENARIOS = {
    scenario.key: scenario
    for scenario in (
        Scenario("f2 kill loop", kill_loop, Plan(3, 40, 4.0, at_once=8), Plan(4, 100_000, 300.0), NO_POISON),
        Scenario(
            "f4 rolling restart",
            rolling_restart,
            Plan(2, 40, 1.0, at_once=8),
            Plan(4, 100_000, 300.0),
            {"POLOS_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"},
        ),
        Scenario(
            "f6 flush of the broker",
            flush,
            Plan(2, 200, 0.0, pace_seconds=0.02),
            Plan(3, 2000, 0.0),
            {"POLOS_RING_AGAIN_SECONDS": "2"},
        ),
        Scenario(
            "f9 database restarts",
            database_restarts,
            Plan(3, 40, 4.0, at_once=8),
            Plan(4, 100_000, 300.0),
            NO_POISON,
            databases=("postgresql",),
            site=own_postgres,
        ),
        *(
            Scenario(
                f"pooler-{name}",
                pooled,
                Plan(2, 100_000, 20.0, at_once=8),
                Plan(3, 100_000, 300.0),
                NO_POISON,
                databases=("postgresql",),
                site=behind_pooler(mode, direct=name == "direct"),
                needs=why_no_pooler,
            )
            for name, mode in (
                ("session", "session"),
                ("transaction", "transaction"),
                ("direct", "transaction"),
            )
        ),
        Scenario(
            "f10 lagging commits",
            lagging_commits,
            Plan(2, 100_000, 10.0, at_once=8),
            Plan(3, 100_000, 300.0),
            NO_POISON,
            databases=("postgresql",),
            site=lagging_postgres,
        ),
        Scenario("f7 broker away", broker_away, Plan(2, 100_000, 12.0, at_once=8), Plan(3, 100_000, 60.0)),
        Scenario(
            "f8 broker frozen", broker_frozen, Plan(2, 100_000, 12.0, at_once=8), Plan(3, 100_000, 90.0)
        ),
        Scenario(
            "f33 delivery limit",
            delivery_limit,
            Plan(2, 100_000, 15.0, at_once=30, slots=2),
            Plan(3, 100_000, 120.0, at_once=30, slots=2),
            NO_POISON,
            brokers=(RABBITMQ,),
        ),
        Scenario("hosts-cut", partitions, Plan(3, 100_000, 60.0), Plan(3, 100_000, 600.0), **HOSTS),
        Scenario("hosts-vanish", vanishing_servers, Plan(2, 100_000, 30.0), Plan(3, 100_000, 300.0), **HOSTS),
        Scenario("hosts-latency", latency, Plan(2, 40, 10.0), Plan(3, 100_000, 300.0), **HOSTS),
        Scenario("hosts-slow", slow_links, Plan(2, 40, 10.0, at_once=8), Plan(3, 100_000, 300.0), **HOSTS),
        Scenario(
            "f11 every message thrice",
            every_message_thrice,
            Plan(2, 20, 1.5),
            Plan(3, 2000, 60.0),
            brokers=(REDIS,),  # the echo knows no other
        ),
        Scenario(
            "f13 late messages",
            late_messages,
            Plan(2, 20, 4.0),
            Plan(3, 500, 30.0),
            brokers=(REDIS,),
            site=behind_holdback,
        ),
        Scenario("f12 zombies", zombies, Plan(1, 0, 0.0), Plan(1, 0, 0.0)),
        Scenario("f14 blocked loop", blocked_loop, Plan(2, 8, 12.0), Plan(2, 40, 60.0)),
        Scenario(
            "f15 clock skew",
            clock_skew,
            Plan(3, 100_000, 30.0, at_once=6),
            Plan(4, 100_000, 300.0),
            SKEWED,
            databases=("postgresql",),  # beside SQLite all have the clock of one machine
            site=clocks_apart,
            needs=why_no_clocks,
        ),
        Scenario(
            "f16 pauses across downtime",
            pauses_across_downtime,
            Plan(1, 2, 8.0),
            Plan(2, 50, 30.0),
        ),
        Scenario(
            "f36 random programs",
            random_programs,
            Plan(2, 20, 0.0, at_once=20, copies=2, pace_seconds=0.02),
            Plan(3, 1000, 0.0, at_once=120, copies=5, pace_seconds=0.02, slots=16),
            {**NO_POISON, "POLOS_IMPORTS": "fuzz.interpreter", "POLOS_MODEL_RETRY_BASE_SECONDS": "0.1"},
            site=own_database,
            model_of=scripted_model,
        ),
        Scenario(
            "f20 poison and bystanders",
            bystanders,
            Plan(1, 60, 60.0, slots=100, pace_seconds=0.5),
            Plan(1, 999, 120.0, slots=1100, pace_seconds=5.0),
            POISONED,
        ),
        Scenario("f17 answers while down", answers_while_down, Plan(2, 40, 0.0), Plan(3, 1000, 0.0), ASKING),
        Scenario("f18 event races", event_races, Plan(2, 800, 10.0), Plan(3, 10_000, 200.0), READ),
        Scenario("f22 fair shares", fair_shares, Plan(2, 5000, 0.0), Plan(2, 100_000, 0.0), QUEUED),
        Scenario(
            "f23 killed holders",
            killed_holders,
            Plan(3, 0, 15.0, pace_seconds=0.3),
            Plan(3, 0, 400.0, pace_seconds=0.3),
            QUEUED,
        ),
        Scenario(
            "f24 shared rate",
            shared_rate,
            Plan(8, 100, 0.0),
            Plan(8, 1000, 0.0),
            LIMITED,
            brokers=(REDIS,),
        ),
        Scenario(
            "f25 cancel storm",
            cancel_storm,
            Plan(2, 40, 5.0, slots=16),
            Plan(3, 600, 120.0, slots=16),
            CANCELLED,
        ),
        Scenario(
            "f29 contention",
            contention,
            Plan(4, 100_000, 30.0, at_once=8),
            Plan(8, 100_000, 600.0),
            NO_POISON,
            databases=("sqlite",),
        ),
        Scenario(
            "f30 scarcity",
            scarcity,
            Plan(2, 100_000, 20.0, at_once=8),
            Plan(3, 100_000, 300.0),
            site=on_small_disk,
            needs=why_no_disk,
        ),
        Scenario(
            "f25-points cancelled anywhere",
            cancelled_anywhere,
            Plan(1, 1, 0.0, pace_seconds=0.01),
            Plan(1, 0, 0.0, pace_seconds=0.01),
            HELD,
            model_of=held_model,
        ),
        Scenario(
            "f30-quiet scarcity",
            quiet_scarcity,
            Plan(2, 100_000, 60.0, at_once=4, pace_seconds=12.0),
            Plan(3, 100_000, 300.0, at_once=8, pace_seconds=12.0),
            QUIET,
            site=on_small_disk,
            needs=why_no_disk,
        ),
        Scenario("f32 missed ticks", missed_ticks, Plan(3, 160, 0.0), Plan(3, 1600, 0.0), TICKING),
        Scenario("f37 soak", soak, Plan(1, 0, 60.0, at_once=4), Plan(2, 0, 600.0, at_once=4), SOAKED),
        Scenario(
            "outage of long turns",
            outage,
            Plan(2, 60, 60.0, pace_seconds=12.0, slots=100),
            Plan(2, 500, 120.0, pace_seconds=30.0, slots=400),
            databases=("postgresql",),
            site=own_postgres,
        ),
        Scenario(
            "deploy of long turns",
            deployments,
            Plan(2, 40, 30.0, pace_seconds=8.0, slots=40, at_once=30),
            Plan(3, 300, 120.0, pace_seconds=30.0, slots=100, at_once=120),
            {"POLOS_DRAIN_SECONDS": f"{GRACE_SECONDS:g}"},
        ),
        Scenario(
            "deploy-hasty of long turns",
            hasty_deployments,
            Plan(2, 40, 30.0, pace_seconds=8.0, slots=40, at_once=30),
            Plan(3, 300, 120.0, pace_seconds=30.0, slots=100, at_once=120),
            {"POLOS_DRAIN_SECONDS": f"{SHORT_GRACE_SECONDS:g}"},
        ),
    )
}


class Setting:
    """What scenarios share: a PostgreSQL, and what runs look like without a fault."""

    def __init__(self, folder: Path, create_database: Callable[[], str]) -> None:
        self._folder = folder
        self._create_database = create_database
        self._references: dict[str, Shape] = {}

    async def refer(self) -> None:
        """Run each program once without a fault: what all others must look like."""
        plan = Plan(workers=1, runs=0, seconds=0.0)
        async with self._arena("references", "sqlite", plan, {}) as arena:
            await arena.hire()
            began = {program: await arena.start(program) for program in CHAINS}
            assert await arena.all_ended(), "runs do not end even without faults"
            evidence = arena.evidence()
            self._references = {program: evidence.shape(root) for program, root in began.items()}

    async def play(self, scenario: Scenario, database: str, plan: Plan) -> Report:
        """Play a scenario on a new database and report, whatever goes wrong."""
        report = Report(scenario.name, database, plan.broker)
        began = time.monotonic()
        where = (scenario.site, scenario.model_of)
        async with self._arena(scenario.key, database, plan, scenario.settings, *where) as arena:
            try:
                await scenario.play(arena)
            except (TimeoutError, AssertionError) as error:
                arena.miss("stage", str(error))
            arena.verdict(report)
        report.seconds = time.monotonic() - began
        return report

    def _new_folder(self, name: str) -> Path:
        """Make a folder; a scenario may be played several times."""
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        folder = next(each for each in (self._folder / name for name in names) if not each.exists())
        folder.mkdir(parents=True)
        return folder

    @contextlib.asynccontextmanager
    async def _arena(
        self,
        name: str,
        database: str,
        plan: Plan,
        settings: Mapping[str, str],
        site: MakeSite = new_database,
        model_of: ModelOf = paced_model,
    ) -> AsyncIterator[Arena]:
        folder = self._new_folder(
            "-".join([name, database, *([] if plan.broker == REDIS else [plan.broker])])
        )
        with site(Ground(database, folder, self._create_database)) as place:
            async with open_arena(
                plan=plan,
                folder=folder,
                site=place,
                settings=settings,
                references=self._references,
                model_of=model_of,
            ) as arena:
                yield arena


def sized(plan: Plan, **values: Any) -> Plan:
    """Return a plan with those values that are given."""
    return replace(plan, **{name: value for name, value in values.items() if value is not None})
