"""What work costs that noise cannot change: statements, transactions, Redis commands, messages, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.ledger import BLOCKING, ENGINE, Ledger
from benchmarks.workers import Fleet

# An audit's reads, once a second whatever is done. What beat and sweeper send is left out too.
BACKGROUND = {"runs.read_owned", "turns.read_owned_turns"}
OWN_COMMANDS = {"info", "client|setinfo", "hello", "select", "client|id"}  # of counting and connecting
REDIS = "redis:"
BYTES_TO_REDIS = "bytes_to_redis"
BYTES_FROM_REDIS = "bytes_from_redis"


@dataclass(frozen=True)
class Meter:
    """Reads all counters of a fleet, its Valkey and this process, which is the client."""

    fleet: Fleet
    client: Ledger
    valkey_url: str

    def read(self) -> Counter[str]:
        """Return all counters so far."""
        total = self.fleet.used()
        for name, value in self.client.counts().items():
            total[name.replace(BLOCKING, "client", 1)] += value
        total.update(self._of_redis())
        return total

    def _of_redis(self) -> Counter[str]:
        with closing(redis.Redis.from_url(self.valkey_url)) as server:
            commands: dict[str, Any] = server.info("commandstats")
            stats: dict[str, Any] = server.info("stats")
        found = Counter(
            {
                f"{REDIS}{name.removeprefix('cmdstat_')}": int(command["calls"])
                for name, command in commands.items()
                if name.removeprefix("cmdstat_") not in OWN_COMMANDS
            }
        )
        found[BYTES_TO_REDIS] = int(stats["total_net_input_bytes"])
        found[BYTES_FROM_REDIS] = int(stats["total_net_output_bytes"])
        return found


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

    `round_trips` are those of PostgreSQL; `messages` are Celery's; `background` statements are not counted.
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
        "worker_cpu_ms": 1000 * counts["cpu_seconds"],
    }
    return {name: round(total / units, 4) for name, total in totals.items()}


def _total(counts: Counter[str], names: Iterable[str]) -> int:
    return sum(counts[name] for name in names)
