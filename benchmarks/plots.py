"""`python -m benchmarks.plots FILE…`: SVG plots of the JSON lines of `python -m benchmarks --out FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Lines = Sequence[Mapping[str, Any]]
PROCESSORS = {
    "worker_cpu_ms": "workers",
    "client_cpu_ms": "client",
    "postgres_cpu_ms": "PostgreSQL",
    "valkey_cpu_ms": "Valkey",
}
CURVE_ROWS = 10
ROW_INCHES = 0.28
FIXED_INCHES = 1.4  # of a plot: title and axis
WIDTH_INCHES = 9.0
STYLE = {"svg.hashsalt": "polos", "svg.fonttype": "none", "font.size": 9}  # the same lines, the same bytes


@dataclass(frozen=True)
class Bar:
    """A share of a floor's speed, with the least and the most of its repeats."""

    label: str
    median: float
    least: float
    most: float


def newest(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the lines say, of each workload, database and variant the last one.

    Raises:
        ValueError: A line is none of `python -m benchmarks`.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            key = (line["workload"], line["database"], line["variant"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Line {number} is not one that `python -m benchmarks --out` writes") from error
        found.pop(key, None)
        found[key] = line
    return list(found.values())


def shares(lines: Lines) -> list[Bar]:
    """Return how much of each floor's speed polos has."""
    return [
        Bar(f"{title(line)}: {name} / {floor}", share["median"], share["min"], share["max"])
        for line in lines
        for name, figure in line["figures"].items()
        for floor, found in figure["floors"].items()
        for share in (found["share"],)
    ]


def processors(lines: Lines) -> list[tuple[str, dict[str, float]]]:
    """Return the milliseconds of CPU that a unit of work costs each part, where they were counted."""
    return [
        (
            f"{title(line)}: {line['unit']}",
            {part: line["per_unit"][name] for name, part in PROCESSORS.items()},
        )
        for line in lines
        if line["per_unit"] and set(PROCESSORS) <= set(line["per_unit"])
    ]


def curves(lines: Lines) -> dict[str, tuple[str, dict[str, list[list[float]]]]]:
    """Return all curves by a name for their plot: what the axis counts, and points by label."""
    return {
        "-".join(f"{line['workload']} {line['variant']} {line['database']}".replace(",", "").split()): (
            line["axis"],
            found,
        )
        for line in lines
        if (found := line["curves"])
    }


def title(line: Mapping[str, Any]) -> str:
    """Return what a line measured, in a few words."""
    return " ".join(part for part in (line["workload"], line["database"], line["variant"]) if part)


def draw(lines: Lines, folder: Path) -> list[Path]:
    """Write all plots below `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_draw_shares(lines, folder), *_draw_processors(lines, folder), *_draw_curves(lines, folder)]


def _draw_shares(lines: Lines, folder: Path) -> Iterator[Path]:
    if not (bars := shares(lines)):
        return
    figure, axes = _plot("share of the floor's speed: medians, least and most; 1 is as fast", len(bars))
    medians = [bar.median for bar in bars]
    errors = [[bar.median - bar.least for bar in bars], [bar.most - bar.median for bar in bars]]
    axes.barh([bar.label for bar in bars], medians, xerr=errors, color="#4c72b0", ecolor="#333333")
    axes.axvline(1, color="#999999", linewidth=1)
    axes.set_xscale("log")
    _from_the_top(axes)
    yield _saved(figure, folder / "shares.svg")


def _draw_processors(lines: Lines, folder: Path) -> Iterator[Path]:
    if not (rows := [(label, costs) for label, costs in processors(lines) if sum(costs.values())]):
        return
    figure, axes = _plot("whose processor time a unit of work costs", len(rows))
    labels = [f"{label}, {sum(costs.values()):.3g} ms" for label, costs in rows]
    begins = [0.0] * len(rows)
    for part in PROCESSORS.values():
        widths = [costs[part] / sum(costs.values()) for _, costs in rows]
        axes.barh(labels, widths, left=begins, label=part)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    _from_the_top(axes)
    figure.legend(loc="outside lower right", ncols=len(PROCESSORS))
    yield _saved(figure, folder / "cpu.svg")


def _draw_curves(lines: Lines, folder: Path) -> Iterator[Path]:
    for name, (axis, found) in curves(lines).items():
        figure, axes = _plot(name.replace("-", " "), CURVE_ROWS)
        for label, points in found.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(axis)
        axes.legend()
        yield _saved(figure, folder / f"{name}.svg")


def _plot(title: str, rows: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, FIXED_INCHES + rows * ROW_INCHES), layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots()


def _from_the_top(axes: Any) -> None:
    axes.margins(y=0.01)
    axes.invert_yaxis()


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser("python -m benchmarks.plots", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON lines; later ones win")
    parser.add_argument("--folder", type=Path, default=Path("plots"), help="where the plots go: plots")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ModuleNotFoundError:
        sys.exit("The plots need matplotlib: pip install 'polos[bench]'")
    try:
        lines = newest(line for file in arguments.files for line in file.read_text().splitlines())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    with matplotlib.rc_context(STYLE):
        for path in draw(lines, arguments.folder):
            print(path)


if __name__ == "__main__":
    main()
