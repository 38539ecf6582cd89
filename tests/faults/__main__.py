"""The long forms: ``python -m tests.faults f2 --seconds 300 --seed 7 --database postgresql --pool solo``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "models")]

from arena import HEADINGS, Plan, Report  # noqa: E402 - the folders of tests are no packages
from broker_kinds import BROKERS, RABBITMQ, REDIS, why_no_rabbitmq  # noqa: E402
from repertoire import DATABASES, SCENARIOS, Scenario, Setting, sized  # noqa: E402
from services import postgres  # noqa: E402


def main() -> int:
    wanted = _wanted()
    folder = Path(wanted.folder or tempfile.mkdtemp(prefix="polos-faults-"))
    print(f"seed {wanted.seed}; logs in {folder}\n{HEADINGS}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["FAULT_LEDGER"] = str(folder / "nobody.ledger")  # we import the programs, too
    reports = asyncio.run(_play_all(wanted, folder))
    for report in reports:
        for miss in report.misses[:20]:
            print(f"\n{report.scenario} on {report.database}: {miss}")
    for dump in filter(None, (report.dump for report in reports)):
        print(f"\neverything about them is in {dump}")
    return int(any(report.misses or not report.faults or not report.succeeded for report in reports))


def _wanted() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all")
    parser.add_argument("--database", action="append", choices=DATABASES, help="both unless given")
    parser.add_argument("--broker", choices=BROKERS, default=REDIS)
    parser.add_argument("--seconds", type=float, help="how long faults go on")
    parser.add_argument("--runs", type=int, help="how many runs at most")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--slots", type=int, help="-c of each worker")
    parser.add_argument("--pool", help="-P of each worker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the sizes of the test command")
    parser.add_argument("--folder", help="where logs and dumps go")
    wanted = parser.parse_args()
    unknown = set(wanted.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {sorted(unknown)}; there are {sorted(SCENARIOS)}")
    if wanted.broker == RABBITMQ and (reason := why_no_rabbitmq()):
        parser.error(reason)
    return wanted


async def _play_all(wanted: argparse.Namespace, folder: Path) -> Sequence[Report]:
    reports = []
    with postgres() as server:
        setting = Setting(folder, server.create_database)
        if any(scenario.needs_week for scenario, _ in _chosen(wanted)):
            await setting.refer()
        for scenario, database in _chosen(wanted):
            plan = _plan(wanted, scenario)
            reports.append(await setting.play(scenario, database, plan))
            print(reports[-1], flush=True)
    return reports


def _chosen(wanted: argparse.Namespace) -> Iterator[tuple[Scenario, str]]:
    for scenario in (SCENARIOS[key] for key in wanted.scenarios or SCENARIOS):
        if reason := scenario.why_not(wanted.broker):
            print(f"{scenario.name:26} not played: {reason}", flush=True)
            continue
        databases = wanted.database or DATABASES
        yield from ((scenario, name) for name in databases if name in scenario.databases)


def _plan(wanted: argparse.Namespace, scenario: Scenario) -> Plan:
    given = {
        name: getattr(wanted, name)
        for name in ("seconds", "runs", "workers", "slots", "pool", "seed", "broker")
    }
    return sized(scenario.short if wanted.short else scenario.long, **given)


if __name__ == "__main__":
    sys.exit(main())
