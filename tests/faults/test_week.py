"""The faults of a normal week, in short: every promise holds for every run. Long forms: see __main__.py."""

from __future__ import annotations

import pytest
from arena import Report
from repertoire import SCENARIOS
from week import Week

WAIT_SECONDS = 480.0  # for a report: scenarios are played a few at a time
SLOWEST_FIRST = ("f36", "f12", "f9", "f16", "f14", "f2", "f4", "f6", "f25-points", "f11")
# Minutes long even in short form: namespaces' workers start afresh, outages have lengths.
BY_COMMAND_ONLY = {
    *("hosts-cut", "hosts-vanish", "hosts-latency", "hosts-slow"),
    *("pooler-session", "pooler-transaction", "pooler-direct", "f10"),
    *("f7", "f8", "f13", "f15", "f33"),
    *(
        "f17",
        "f18",
        "f20",
        "f22",
        "f23",
        "f24",
        "f32",
        "f25",
        "f29",
        "f30",
        "f30-quiet",
        "f37",
        "outage",
        "deploy",
        "deploy-hasty",
    ),
}
# In short form, most on one database: what differs is its kind of death. The long forms play all on both.
SHORT = {
    "f2": ("postgresql",),
    "f4": ("sqlite",),
    "f6": ("postgresql",),
    "f11": ("sqlite",),
    "f14": ("sqlite",),
    "f16": ("postgresql",),
    "f25-points": ("postgresql",),
    "f36": ("sqlite",),
}
CASES = [
    (name, database) for name in SLOWEST_FIRST for database in SHORT.get(name, SCENARIOS[name].databases)
]
pytestmark = pytest.mark.timeout(500)


@pytest.mark.parametrize(("scenario", "week_database"), CASES)
def test_no_fault_costs_a_run_or_repeats_what_is_recorded(
    week_of_faults: Week, scenario: str, week_database: str
) -> None:
    report: Report = week_of_faults.reports[scenario, week_database].result(WAIT_SECONDS)
    assert not report.misses, "\n".join([*map(str, report.misses[:10]), f"see {report.dump}"])
    assert report.faults > 0
    assert report.succeeded == report.runs > 0


def test_every_scenario_is_played() -> None:
    assert {*SLOWEST_FIRST, *BY_COMMAND_ONLY} == set(SCENARIOS)
