"""All that is known of runs with misses, written down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oracles import Evidence, Miss
from processes import Worker

MOST = 20  # runs that are written down
SHOWN = 5  # of these, how many are shown as a user would see them, which takes seconds
SHOW_SECONDS = 60.0


def dump(
    folder: Path,
    evidence: Evidence,
    misses: Sequence[Miss],
    logs: Iterable[tuple[Worker, str]],
    environment: Mapping[str, str],
) -> Path:
    """Write everything about runs with misses below `folder`; return where."""
    place = folder / "misses"
    place.mkdir(exist_ok=True)
    (place / "misses.txt").write_text("\n".join(str(miss) for miss in misses) + "\n")
    (place / "strikes.txt").write_text("\n".join(str(strike) for strike in evidence.strikes) + "\n")
    texts = list(logs)
    for number, root in enumerate(list(dict.fromkeys(miss.run for miss in misses if miss.run))[:MOST]):
        lines = list(_all_about(evidence, misses, texts, root))
        if number < SHOWN:
            lines += _shown(root, environment)
        (place / f"{root}.txt").write_text("\n".join(lines) + "\n")
    return place


def _all_about(
    evidence: Evidence, misses: Sequence[Miss], logs: Sequence[tuple[Worker, str]], root: str
) -> Iterator[str]:
    ids = [run["id"] for run in evidence.tree(root)]
    yield from (str(miss) for miss in misses if miss.run == root)
    promise = evidence.accepted.get(root)  # what is to be cancelled promised nothing
    yield f"program {promise.program if promise else '-'}"
    for run in evidence.tree(root):
        yield f"run {_set(run)}"
        yield from (f"  step {_set(step)}" for step in evidence.steps_of.get(run["id"], []))
    yield from (str(entry) for entry in evidence.entries[root])
    yield from (str(call) for call in evidence.calls if call.key.partition(":")[0] in ids)
    yield from (f"event {_set(event)}" for event in evidence.events if event["topic"].endswith(f"/{root}"))
    for worker, log in logs:
        lines = [line for line in log.splitlines() if any(run_id in line for run_id in ids)]
        yield from (f"{worker.name}: {line}" for line in lines)


def _shown(root: str, environment: Mapping[str, str]) -> list[str]:
    """Return what ``polos runs show`` says."""
    command = [str(Path(sys.executable).with_name("polos")), "runs", "show", root, "--tree"]
    ran = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SHOW_SECONDS
    )
    return [ran.stdout, ran.stderr]


def _set(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, 0, "")}
