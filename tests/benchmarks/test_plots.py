"""Plots of JSON lines: what they show, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import Goal, Result
from benchmarks.plots import Bar, curves, draw, newest, processors, shares


def line(*, speed: float = 5.0, variant: str = "2 workers") -> dict[str, Any]:
    """A line as the command writes them, of one repeat."""
    result = Result("w0", variant, "sqlite", True, "step", 1, {"speed": Goal(None, None)})
    result.polos = [{"speed": speed}]
    result.floors = {"raw": [{"speed": 10.0}]}
    result.counts.update({"cpu_seconds": 2, "engine.transactions": 1})
    result.axis = "workers"
    result.curves = {"speed, polos": [(1.0, 3.0), (2.0, speed)]}
    return result.line()


def test_the_last_line_of_a_measurement_counts() -> None:
    texts = [json.dumps(found) for found in (line(speed=1), line(variant="other"), line(speed=2))]
    assert [found["figures"]["speed"]["polos"]["median"] for found in newest(texts)] == [5, 2]


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "no JSON"])
def test_what_is_no_measurement_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(ValueError, match="Line 2 is not one that"):
        newest([json.dumps(line()), text])


def test_a_bar_is_a_share_of_a_floor() -> None:
    assert shares([line()]) == [Bar("w0 sqlite 2 workers: speed / raw", 0.5, 0.5, 0.5)]


def test_processor_time_is_told_of_each_part() -> None:
    [(label, costs)] = processors([line()])
    assert label == "w0 sqlite 2 workers: step"
    assert costs == {"workers": 2000, "client": 0, "PostgreSQL": 0, "Valkey": 0}


def test_curves_are_named_like_files() -> None:
    assert curves([line(variant="runs, 4 workers")]) == {
        "w0-runs-4-workers-sqlite": ("workers", {"speed, polos": [[1, 3], [2, 5]]})
    }


def test_equal_lines_are_drawn_as_equal_files(tmp_path: Path) -> None:
    """So that a plot in a repository changes with its figures only."""
    matplotlib = pytest.importorskip("matplotlib")
    from benchmarks.plots import STYLE

    with matplotlib.rc_context(STYLE):
        drawn = [draw([line()], tmp_path / folder) for folder in ("one", "two")]
    assert [path.name for path in drawn[0]] == ["shares.svg", "cpu.svg", "w0-2-workers-sqlite.svg"]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]
