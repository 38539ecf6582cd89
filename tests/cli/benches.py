"""A folder for programs and the command, and the processes started there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nursery

ROOT = Path(__file__).parents[2]
POLOS = (sys.executable, "-m", "polos.cli.main")


def wait_until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


class Bench:
    """A folder for a program and its `.polos` home, and the processes that work in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".polos"
        self._started: list[nursery.Process] = []

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("POLOS_", "OPENAI_"))
        }
        return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}

    def start(self, *arguments: str, **more: str) -> nursery.Process:
        """Start the command; its output goes to one pipe. Workers load LiteLLM only if they need it."""
        if arguments[:1] == ("worker",):
            more = {"POLOS_PRELOAD_MODELS": "0", **more}
        process = nursery.start(
            [*POLOS, *arguments],
            cwd=self.folder,
            env=self.environment(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Run the command to its end; return exit code and output."""
        process = self.start(*arguments, **more)
        output, _ = process.communicate(timeout=90)
        return process.returncode, output

    def living(self) -> list[int]:
        """Return the processes that work in the folder: the embedded server and its watcher do, too."""
        living = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended, or is not ours to read
                # Not by the environment: Celery and Valkey write their titles over it.
                if os.readlink(process / "cwd").startswith(str(self.folder)):
                    living.append(int(process.name))
        return living

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def open_bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="polos-")).resolve()  # not tmp_path: too long for a socket
    bench = Bench(folder)
    try:
        yield bench
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
