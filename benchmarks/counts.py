"""What work costs that noise cannot change: statements, transactions, Redis commands, messages, bytes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.ledger import BLOCKING, ENGINE, Ledger
from benchmarks.processes import family_cpu_seconds
from benchmarks.servers import Site
from benchmarks.waiting import connection
from benchmarks.workers import Fleet

# An audit's reads, once a second whatever is done. What beat and sweeper send is left out too.
BACKGROUND = {"runs.read_owned", "turns.read_owned_turns"}
OWN_COMMANDS = {"info", "client|setinfo", "hello", "select", "client|id"}  # of counting and connecting
RESIDENCY = {"parks": "runs.park", "journal_reads": "steps.read_steps", "claims_per_run": "runs.claim"}
WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
REDIS = "redis:"
BYTES_TO_REDIS = "bytes_to_redis"
BYTES_FROM_REDIS = "bytes_from_redis"
CLIENT_CPU = "client_cpu_seconds"
POSTGRES_CPU = "postgres_cpu_seconds"
VALKEY_CPU = "valkey_cpu_seconds"
WAL_BYTES = "wal_bytes"


@dataclass(frozen=True)
class Meter:
    """Reads all counters of a fleet, its servers and this process, which is the client."""

    fleet: Fleet
    client: Ledger
    site: Site

    def read(self) -> Counter[str]:
        """Return all counters so far."""
        total = self.fleet.used()
        for name, value in self.client.counts().items():
            total[name.replace(BLOCKING, "client", 1)] += value
        total[CLIENT_CPU] += time.process_time()  # type: ignore[assignment]  # a Counter adds floats too
        total.update(self._of_redis())
        total.update(self._of_postgres())
        return total

    def _of_redis(self) -> Counter[str]:
        with closing(redis.Redis.from_url(self.site.valkey_url)) as server:
            commands: dict[str, Any] = server.info("commandstats")
            stats: dict[str, Any] = server.info("stats")
            cpu: dict[str, Any] = server.info("cpu")
        found = Counter(
            {
                f"{REDIS}{name.removeprefix('cmdstat_')}": int(command["calls"])
                for name, command in commands.items()
                if name.removeprefix("cmdstat_") not in OWN_COMMANDS
            }
        )
        found[BYTES_TO_REDIS] = int(stats["total_net_input_bytes"])
        found[BYTES_FROM_REDIS] = int(stats["total_net_output_bytes"])
        found[VALKEY_CPU] = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        return found

    def _of_postgres(self) -> dict[str, float]:
        """Return what the server has used: all its processes, those for the upkeep of tables included."""
        if self.site.postgres_pid is None:
            return {}
        with connection(self.site.journal_url) as driver:
            [written] = driver.execute(WRITTEN).fetchone()
        return {POSTGRES_CPU: family_cpu_seconds(self.site.postgres_pid), WAL_BYTES: int(written)}


def difference(after: Counter[str], before: Counter[str]) -> Counter[str]:
    """Return what was counted in between."""
    return Counter({name: after[name] - before[name] for name in after if after[name] != before[name]})


def statements(counts: Counter[str], group: str) -> dict[str, int]:
    """Return the statements of a group by name, without the audit's."""
    return {
        name.removeprefix(f"{group}:"): times
        for name, times in counts.most_common()
        if name.startswith(f"{group}:") and name.removeprefix(f"{group}:") not in BACKGROUND
    }


def redis_commands(counts: Counter[str]) -> dict[str, int]:
    """Return the commands Redis executed, by name, most frequent first."""
    return {name.removeprefix(REDIS): times for name, times in counts.most_common() if name.startswith(REDIS)}


def per_unit(counts: Counter[str], units: int) -> dict[str, float]:
    """Return what one unit of work costs.

    `round_trips` are those of PostgreSQL, and so is `wal_bytes`, its log, which replicas are sent; `messages`
    are Celery's; `background` statements are not counted. Times of processors are noise, the rest is not.
    """
    engine = statements(counts, ENGINE)
    background = sum(counts[f"{ENGINE}:{name}"] for name in BACKGROUND)
    totals: dict[str, float] = {
        "transactions": counts[f"{ENGINE}.transactions"],
        "statements": sum(engine.values()),
        "round_trips": max(counts[f"{ENGINE}.round_trips"] - background, 0),
        "client_transactions": counts["client.transactions"],
        "client_statements": sum(statements(counts, "client").values()),
        "messages": counts[f"{REDIS}lpush"],
        "redis_commands": sum(redis_commands(counts).values()),
        "redis_bytes": _total(counts, (BYTES_TO_REDIS, BYTES_FROM_REDIS)),
        "wal_bytes": counts[WAL_BYTES],
        "worker_cpu_ms": 1000 * counts["cpu_seconds"],
        "client_cpu_ms": 1000 * counts[CLIENT_CPU],
        "postgres_cpu_ms": 1000 * counts[POSTGRES_CPU],
        "valkey_cpu_ms": 1000 * counts[VALKEY_CPU],
    }
    return {name: round(total / units, 4) for name, total in totals.items()}


def residency(counts: Counter[str], *, runs: int) -> dict[str, float]:
    """Return whether `runs` runs stayed in memory: parks, journals read for a replay, claims of each run."""
    found = {note: counts[f"{ENGINE}:{statement}"] for note, statement in RESIDENCY.items()}
    return {**found, "claims_per_run": found["claims_per_run"] / runs}


def _total(counts: Counter[str], names: Iterable[str]) -> int:
    return sum(counts[name] for name in names)
