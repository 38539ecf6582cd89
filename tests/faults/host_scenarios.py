"""Faults between hosts, one function each: cuts of all kinds, latency, slow links, servers that go unseen."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from arena import BOOT_SECONDS, PATIENCE_SECONDS, Arena
from crew import name_of
from network import Host
from places import Hosts
from processes import Worker
from scenarios import only_the_struck_are_dead
from week_program import MIXED

SHORT_CUT, LONG_CUT = 0.5, 1.8  # in silence limits
LATENCY_SECONDS, JITTER_SECONDS = 0.05, 0.02
SLOW_BYTES_PER_SECOND = 256_000 / 8
HEALS_SECONDS = 30.0  # until a worker executes again, on a loaded machine


class Server(Protocol):
    """What can be replaced."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass(frozen=True)
class Cut:
    """Which packets of one worker are lost: to and from which servers."""

    servers: tuple[str, ...]
    sent: bool = True
    received: bool = True

    def __str__(self) -> str:
        way = "" if self.sent and self.received else " sent" if self.sent else " received"
        return f"{' and '.join(self.servers)}{way}"

    @property
    def silences(self) -> bool:
        """Whether the worker cannot beat."""
        return "database" in self.servers


CUTS = (
    Cut(("database",)),
    Cut(("broker",)),
    Cut(("database", "broker")),
    Cut(("database",), received=False),
    Cut(("database",), sent=False),
    Cut(("broker",), received=False),
    Cut(("broker",), sent=False),
)


# -- cuts


async def partitions(arena: Arena) -> None:
    """Cut one worker after the other off, in every way, for less and for more than the silence limit."""
    plan = arena.plan
    await arena.hire(plan.workers)
    chance = random.Random(plan.seed)
    ends = time.monotonic() + plan.seconds
    recoveries: list[float] = []
    async with arena.load(MIXED):
        for cut, length in _each(chance):
            if time.monotonic() >= ends:
                break
            recoveries.append(await _cut_off(arena, chance.choice(arena.crew.living), cut, length))
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    _note_recoveries(arena, recoveries)


def _each(chance: random.Random) -> Iterator[tuple[Cut, float]]:
    """Yield every kind of cut with both lengths, again and again, each time in another order."""
    while True:
        kinds = [(cut, length) for cut in CUTS for length in (SHORT_CUT, LONG_CUT)]
        yield from chance.sample(kinds, len(kinds))


async def _cut_off(arena: Arena, worker: Worker, cut: Cut, length: float) -> float:
    """Cut a worker off for `length` silence limits and heal it; return how long it took to work again."""
    arena.faults += 1
    seconds = length * arena.client.settings.silence_limit_seconds
    is_declared_dead = cut.silences and length > 1
    if is_declared_dead:
        arena.crew.cut_off(worker)
    _apply(_hosts(arena), worker, cut, lost=True)
    await asyncio.sleep(seconds)  # a cut has a length
    if is_declared_dead:
        await _is_forgotten(arena, worker)
    _apply(_hosts(arena), worker, cut, lost=False)
    healed_at = time.time()
    await arena.until(
        lambda: _works_since(arena, worker, healed_at),
        PATIENCE_SECONDS,
        f"{worker.name} did nothing after {cut} was cut for {seconds:.0f} s",
    )
    took = _works_since(arena, worker, healed_at)
    if took > HEALS_SECONDS:
        arena.miss("healed", f"{worker.name} worked {took:.1f} s after {cut} was cut for {seconds:.0f} s")
    return took


def _apply(hosts: Hosts, worker: Worker, cut: Cut, *, lost: bool) -> None:
    here = hosts.of_worker(name_of(worker))
    for server in cut.servers:
        there: Host = getattr(hosts, server)
        if cut.sent:
            hosts.network.link(here, there, lost=lost)
        if cut.received:
            hosts.network.link(there, here, lost=lost)


async def _is_forgotten(arena: Arena, worker: Worker) -> None:
    await arena.until(
        lambda: worker.name not in arena.worker_names(),
        BOOT_SECONDS,
        f"{worker.name} is cut off and not declared dead",
    )


def _works_since(arena: Arena, worker: Worker, moment: float) -> float:
    """Return how long after `moment` a worker began a side effect; 0 while it has not."""
    times = [
        entry.at
        for entry in arena.ledger.read()
        if entry.worker == name_of(worker) and entry.at > moment and entry.phase == "start"
    ]
    return min(times) - moment if times else 0.0


def _hosts(arena: Arena) -> Hosts:
    assert arena.site.hosts is not None
    return arena.site.hosts


def _note_recoveries(arena: Arena, seconds: list[float]) -> None:
    worst = sorted(seconds)[min(int(len(seconds) * 0.99), len(seconds) - 1)]
    arena.notes["works again after"] = f"{statistics.median(seconds):.1f} s, p99 {worst:.1f} s"


# -- servers that go without a word


async def vanishing_servers(arena: Arena) -> None:
    """Kill a server while nobody hears it, and have another come up at its address, in turn."""
    plan = arena.plan
    await arena.hire(plan.workers)
    ends = time.monotonic() + plan.seconds
    servers: list[tuple[str, Server]] = [("broker", arena.broker), ("database", arena.site.server)]
    recoveries: list[float] = []
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            name, server = servers[arena.faults % len(servers)]
            recoveries.append(await _vanishes(arena, name, server))
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    _note_recoveries(arena, recoveries)


async def _vanishes(arena: Arena, name: str, server: Server) -> float:
    """Let a server die in the dark and return; return how long it took until all workers worked again."""
    arena.faults += 1
    arena.disconnect()
    hosts = _hosts(arena)
    for worker in arena.crew.living:
        _apply(hosts, worker, Cut((name,)), lost=True)
    await asyncio.to_thread(_replace, server)
    for worker in arena.crew.living:
        _apply(hosts, worker, Cut((name,)), lost=False)
    back_at = time.time()
    took = [await _worked(arena, worker, back_at, name) for worker in arena.crew.living]
    if max(took) > HEALS_SECONDS:
        arena.miss("healed", f"a worker worked {max(took):.1f} s after another {name} was there")
    return max(took)


def _replace(server: Server) -> None:
    """Kill it and start another; in one go, for whoever reads the journal meanwhile holds the loop."""
    server.kill()
    server.start()


async def _worked(arena: Arena, worker: Worker, moment: float, name: str) -> float:
    await arena.until(
        lambda: _works_since(arena, worker, moment),
        PATIENCE_SECONDS,
        f"{worker.name} did nothing after the {name} had been replaced",
    )
    return _works_since(arena, worker, moment)


# -- bad links


async def _with_links(arena: Arena, **rule: float) -> None:
    """Have runs end while all links of all workers are bad: nobody is taken for dead, nothing is repeated."""
    plan = arena.plan
    workers = await arena.hire(plan.workers)
    hosts = _hosts(arena)
    for worker in workers:
        for server in (hosts.database, hosts.broker):
            hosts.network.between(hosts.of_worker(name_of(worker)), server, **rule)
            arena.faults += 2
    ends = time.monotonic() + plan.seconds
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            await asyncio.sleep(0.5)  # the fault is there all the time
    await arena.all_ended()
    await arena.nobody_else_is_listed(workers)
    only_the_struck_are_dead(arena)


async def latency(arena: Arena) -> None:
    """Make every packet 30 to 70 ms late."""
    await _with_links(arena, delay_seconds=LATENCY_SECONDS, jitter_seconds=JITTER_SECONDS)


async def slow_links(arena: Arena) -> None:
    """Give each link 256 kbit/s."""
    await _with_links(arena, bytes_per_second=SLOW_BYTES_PER_SECOND)
