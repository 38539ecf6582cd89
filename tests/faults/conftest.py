"""The rounds of a session, and the table they leave behind."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Postgres

sys.path.append(str(Path(__file__).parents[1] / "models"))  # for its model servers
from arena import HEADINGS
from cases import CASES, KINDS, Case
from reports import REPORTS
from rounds import Rounds, playing
from week import Week, week

DATABASES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        each = [(database, case) for place, case in enumerate(CASES) for database in _databases(place, case)]
        ids = [f"{case.id}-{database}" for database, case in each]
        metafunc.parametrize(("database_name", "case"), each, ids=ids)


def _databases(place: int, case: Case) -> tuple[str, ...]:
    """Deaths around a commit are of both databases; each has its share of the others, or all if asked for."""
    if "commit" in case.point or os.environ.get("KILL9_EVERYWHERE"):
        return DATABASES
    return (DATABASES[place % 2],)


@pytest.fixture(scope="session")
def rounds(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: Postgres,
    valkey_url: str,
) -> Iterator[Rounds]:
    """Every case that the session asks for, under way from now on."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = list(dict.fromkeys((call["database_name"], call["case"]) for call in calls if "case" in call))
    folder = tmp_path_factory.mktemp("faults")
    with playing(wanted, folder=folder, postgres_server=postgres_server, valkey_url=valkey_url) as running:
        yield running
        title = "kill -9 at every fault point: seconds from the kill to the end of the run"
        request.config.stash[REPORTS][title] = _round_lines(running)


@pytest.fixture(scope="session")
def week_of_faults(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> Iterator[Week]:
    """Every scenario that the session asks for, under way from now on."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [(call["scenario"], call["week_database"]) for call in calls if "week_database" in call]
    folder = tmp_path_factory.mktemp("week")
    with week(wanted, folder=folder, create_database=postgres_server.create_database) as played:
        yield played
        title = "faults of a normal week, while runs are under way"
        request.config.stash[REPORTS][title] = _week_lines(played)


def _week_lines(played: Week) -> list[str]:
    done = [report for report in played.reports.values() if report.done() and not report.exception()]
    return [HEADINGS, *(str(report.result()) for report in done)]


def _round_lines(rounds: Rounds) -> list[str]:
    reports = {
        key: done.result() for key, done in rounds.reports.items() if done.done() and not done.exception()
    }
    lines = []
    for case in (case for kind in KINDS for case in CASES if case.kind == kind):
        if any((database, case) in rounds.reports for database in DATABASES):
            cells = "  ".join(_cell(database, reports.get((database, case))) for database in DATABASES)
            lines.append(f"{_name(case):64} {cells}")
    times = sorted(report.recovery_seconds for report in reports.values() if report.ended)
    misses = len(rounds.reports) - sum(report.struck for report in reports.values())
    if times:
        lines.append(
            f"{len(times)} of {len(rounds.reports)} recovered; {misses} faults missed; "
            f"median {statistics.median(times):.1f} s, slowest {times[-1]:.1f} s"
        )
    return lines


def _name(case: Case) -> str:
    nth = f" no. {case.nth}" if case.nth > 1 else ""
    return f"{case.kind}: {case.point}{nth} ({case.match or 'any'}), victim has {case.placement}"


def _cell(database: str, report: object) -> str:
    seconds = getattr(report, "recovery_seconds", 0.0)
    text = f"{seconds:5.1f}" if getattr(report, "ended", False) else "    -"
    return f"{database} {text}"
