"""`python -m benchmarks all`, or some of w1 to w16: JSON lines on stdout, a table on stderr."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import ledger, origin
from benchmarks.measuring import Bench
from benchmarks.model_server import model_server
from benchmarks.report import print_tables
from benchmarks.servers import Servers, servers
from benchmarks.workloads import (
    w1_steps,
    w2_throughput,
    w3_latency,
    w4_agents,
    w5_waiting,
    w6_kill,
    w7_streams,
    w8_long,
    w9_start,
    w10_calls,
    w11_children,
    w12_sleepers,
    w13_queues,
    w14_storage,
    w15_scale,
    w16_replay,
)

MODULES: tuple[Any, ...] = (
    w1_steps,
    w2_throughput,
    w3_latency,
    w4_agents,
    w5_waiting,
    w6_kill,
    w7_streams,
    w8_long,
    w9_start,
    w10_calls,
    w11_children,
    w12_sleepers,
    w13_queues,
    w14_storage,
    w15_scale,
    w16_replay,
)
WORKLOADS = {module.NAME: module for module in MODULES}
DATABASES = ("sqlite", "postgres")
REPEATS, QUICK_REPEATS = 5, 2
LOG_WIDTH = 140  # of the table, where nobody says how wide the terminal is


def _arguments() -> argparse.Namespace:
    titles = "\n".join(f"  {name}  {module.TITLE}" for name, module in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"workloads:\n{titles}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "workloads", nargs="+", choices=["all", *WORKLOADS], metavar="WORKLOAD", help="all, or names"
    )
    parser.add_argument("--database", choices=DATABASES, action="append", help="both unless given")
    parser.add_argument("--quick", action="store_true", help="less of everything: the counts are the same")
    parser.add_argument("--repeats", type=int, help=f"{REPEATS}, or {QUICK_REPEATS} with --quick")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    parser.add_argument("--folder", type=Path, help="where data goes: commits wait for its disk")
    parser.add_argument("--celeryconfig", type=Path, help="settings of the workers, to try what they cost")
    return parser.parse_args()


def main() -> None:
    """Run the workloads that the command line names."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that servers and workers end too
    wanted = list(WORKLOADS) if "all" in arguments.workloads else arguments.workloads
    databases = arguments.database or DATABASES
    counted = ledger.install()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH)
    lines: list[dict[str, Any]] = []
    commit = origin.commit()
    with servers(postgres="postgres" in databases, folder=arguments.folder) as running, model_server() as url:
        versions = origin.versions(valkey_url=running.valkey_url, postgres_url=running.postgres_url)
        for name in wanted:
            for database in databases:
                with _said(console, f"{name} on {database}"):
                    bench = _bench(running, database, arguments, model_url=url, counted=counted)
                    results = asyncio.run(WORKLOADS[name].run(bench))
                of_origin = {"machine": origin.machine(), "versions": versions, "commit": commit}
                for result in results:
                    lines.append({**result.line(), **of_origin})
                    _put_out(lines[-1], arguments.out)
    print_tables(lines, console)


def _bench(
    running: Servers, database: str, arguments: argparse.Namespace, *, model_url: str, counted: ledger.Ledger
) -> Bench:
    repeats = arguments.repeats or (QUICK_REPEATS if arguments.quick else REPEATS)
    settings = arguments.celeryconfig.read_text() if arguments.celeryconfig else ""
    return Bench(
        running.site(database, celery_settings=settings), arguments.quick, repeats, model_url, counted
    )


@contextmanager
def _said(console: Console, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    console.print(f"{what}: {time.monotonic() - began:.1f} s")


def _put_out(line: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(line)
    print(text, file=sys.stdout, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(f"{text}\n")


if __name__ == "__main__":
    main()
