"""Recording a journal: all programs on a worker of one version, killed when the last ones are half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recorded import HANGS_SECONDS, answer_to
from servers import Answer, Seen, chat_answer, recorder
from services import valkey

from polos.journal.database import Database
from polos.journal.exports import export

HERE = Path(__file__).parent
SINCE = {  # the first revision whose version can import a module
    "recorded_plain": "0001",
    "recorded_agents": "0001",
    "recorded_events": "0003",
    "recorded_waits": "0004",
    "recorded_sessions": "0005",
}


def record(name: str, *, code: Path, folder: Path) -> str:
    """Write ``{name}.jsonl.gz``, and the doorbells beside it; return what is in it.

    Raises:
        FileExistsError: There is one: recorded journals are never changed.
    """
    path = folder / f"{name}.jsonl.gz"
    if path.exists():
        raise FileExistsError(f"{path} is there already; recorded journals are never changed")
    head, version = version_of(code)
    with tempfile.TemporaryDirectory(prefix="polos-replay-") as home, valkey() as broker, recorder() as model:
        model.answer = answered
        database = f"sqlite:///{home}/journal.db"
        environment = environment_of(
            code, Path(home), broker=broker, model=model.url, database=database, head=head
        )
        with running_worker("recorded", Path(home), environment):
            _start("early", environment)
        _start("late", environment)
        found = export(Database(database), polos=version)
    found.write(path)
    (folder.parent / "messages" / f"{name}.jsonl").write_text(_doorbells_of(code))
    rows = ", ".join(f"{len(rows)} {table}" for table, rows in found.rows.items())
    return f"{path}: revision {found.schema}, {path.stat().st_size} bytes: {rows}"


def _doorbells_of(code: Path) -> str:
    command = [sys.executable, str(HERE / "doorbells.py")]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout


def version_of(code: Path) -> tuple[str, str]:
    """Return revision and version of a checkout."""
    script = "import polos; from polos.journal.schema import HEAD; print(HEAD, polos.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(code)}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=code, env=environment, capture_output=True, check=True
    )
    head, version = said.stdout.decode().split()
    return head, version


def environment_of(
    code: Path, home: Path, *, broker: str, model: str, database: str, head: str
) -> dict[str, str]:
    """Return the environment of clients and workers of a checkout, with what revision `head` can do."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(code), str(HERE)]),
        "POLOS_DATABASE_URL": database,
        "POLOS_BROKER_URL": f"{broker}/0",
        "POLOS_HOME": f"{home}/.polos",
        "POLOS_EMBEDDED_WORKER": "0",
        "POLOS_IMPORTS": ",".join(module for module, since in SINCE.items() if since <= head),
        "POLOS_MAX_RETRIES": "50",
        "POLOS_SWEEP_SECONDS": "0.1",
        "POLOS_MODEL_RETRY_BASE_SECONDS": "0.01",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "sk-recorded",
        "REPLAY_MODEL_URL": f"{model}/v1",
        "REPLAY_RECORDING": "1",
    }


@contextmanager
def running_worker(name: str, home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker while the context lasts, then kill it where it stands."""
    command = [sys.executable, "-m", "celery", "-A", "polos", "worker", "-l", "INFO", "-c", "50"]
    log = home / f"{name}.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [*command, "-n", f"{name}@here", "--without-mingle", "--without-gossip"],
            cwd=home,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _until_there(worker, log)
        yield worker
    except Exception:
        print(log.read_text()[-5000:], file=sys.stderr)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _until_there(worker: subprocess.Popen[bytes], log: Path) -> None:
    while "ready" not in log.read_text():
        if worker.poll() is not None:
            raise RuntimeError(f"The worker ended with {worker.returncode}")
        time.sleep(0.05)


def _start(when: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, str(HERE / "starter.py"), when], env=environment, check=True)


def answered(seen: Seen) -> Answer:
    said = answer_to(seen.body["messages"])
    if said["hangs"]:
        time.sleep(HANGS_SECONDS)
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(said["calls"])
    ]
    return Answer(chat_answer(calls=calls) if calls else chat_answer(said["says"]))
