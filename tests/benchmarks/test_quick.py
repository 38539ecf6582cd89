"""The benchmarks run, and count what noise cannot change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

REPOSITORY = Path(__file__).parents[2]
FIELDS = {"workload", "variant", "database", "quick", "unit", "units", "repeats", "machine", "figures"} | {
    "per_unit",
    "totals",
    "peak_memory_mb",
    "notes",
    "curves",
    "axis",
    "versions",
    "commit",
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The one JSON line of the smallest benchmark."""
    out = tmp_path_factory.mktemp("benchmarks") / "lines.jsonl"
    command = [sys.executable, "-m", "benchmarks", "w1", "--quick", "--database", "sqlite", "--repeats", "1"]
    ended = subprocess.run(
        [*command, "--out", str(out)], cwd=REPOSITORY, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == out.read_text()
    [text] = ended.stdout.splitlines()
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_says_what_was_measured_beside_which_floors(line: dict[str, Any]) -> None:
    assert set(line) == FIELDS
    assert (line["workload"], line["database"], line["units"], line["repeats"]) == ("w1", "sqlite", 200, 1)
    figure = line["figures"]["steps_per_second"]
    assert figure["goal"] == 2000
    assert figure["polos"]["median"] == figure["polos"]["values"][0] > 0
    assert set(figure["floors"]) == {"raw commits", "group commit"}
    for floor in figure["floors"].values():
        assert floor["share"]["median"] == pytest.approx(
            figure["polos"]["median"] / floor["median"], rel=0.01
        )


def test_a_step_is_two_statements_in_a_transaction_of_its_own(line: dict[str, Any]) -> None:
    """Besides its steps a run is claimed and finished."""
    assert line["totals"]["statements"] == {
        "runs.progress": 200,
        "steps.insert_outcome": 200,
        "runs.claim": 1,
        "ends.finish": 1,
    }
    assert line["totals"]["transactions"] == 202


def test_steps_send_no_messages(line: dict[str, Any]) -> None:
    """One doorbell starts the run, whatever it does."""
    assert line["totals"]["redis"]["lpush"] == 1
