"""The long forms: ``python -m tests.faults f2 --seconds 300 --seed 7 --database postgresql --pool solo``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "models")]

from arena import HEADINGS, Plan, Report  # noqa: E402 - the folders of tests are no packages
from broker_kinds import BROKERS, RABBITMQ, REDIS, why_no_rabbitmq  # noqa: E402
from fuzz.command import replay, waves  # noqa: E402
from fuzz.mix import KINDS  # noqa: E402
from fuzz.scenario import programs_in  # noqa: E402
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
    random_ones = parser.add_argument_group("f36, random programs")
    random_ones.add_argument("--programs", type=int, dest="runs", help="how many runs of programs, as --runs")
    random_ones.add_argument("--copies", type=int, help="how often each program runs under faults")
    random_ones.add_argument("--at-once", type=int, help="how many runs are under way")
    random_ones.add_argument("--mix", type=_mix, help=f"which faults, of {','.join(KINDS)}; all unless given")
    random_ones.add_argument(
        "--program", type=Path, help="play the program of this file, or those of a folder"
    )
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
            async for report in _played(wanted, setting, scenario, database):
                reports.append(report)
                print(report, flush=True)
    return reports


async def _played(
    wanted: argparse.Namespace, setting: Setting, scenario: Scenario, database: str
) -> AsyncIterator[Report]:
    plan = _plan(wanted, scenario)
    if scenario.key != "f36":
        yield await setting.play(scenario, database, plan)
    elif wanted.program is not None:
        yield await replay(setting, database, plan, programs_in(wanted.program))
    else:
        async for report in waves(setting, database, plan):
            yield report


def _chosen(wanted: argparse.Namespace) -> Iterator[tuple[Scenario, str]]:
    for scenario in (SCENARIOS[key] for key in wanted.scenarios or SCENARIOS):
        if reason := scenario.why_not(wanted.broker):
            print(f"{scenario.name:26} not played: {reason}", flush=True)
            continue
        databases = wanted.database or DATABASES
        yield from ((scenario, name) for name in databases if name in scenario.databases)


def _mix(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := set(kinds) - set(KINDS):
        raise argparse.ArgumentTypeError(f"there is no fault {sorted(unknown)}; there are {', '.join(KINDS)}")
    return kinds


def _plan(wanted: argparse.Namespace, scenario: Scenario) -> Plan:
    given = {
        name: getattr(wanted, name)
        for name in (
            *("seconds", "runs", "workers", "slots", "pool", "seed", "broker"),
            *("copies", "at_once", "mix"),
        )
    }
    return sized(scenario.short if wanted.short else scenario.long, **given)


if __name__ == "__main__":
    sys.exit(main())
