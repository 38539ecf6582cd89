"""The servers of the session, and the folders of tests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from broker_servers import Certificates, RabbitMQ, Server, make_certificates, rabbitmq, running, valkey_server
from models.servers import ModelServer, model_server


@pytest.fixture(scope="session")
def broker_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="polos-b-")).resolve()  # not tmp_path: too long for a socket
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(broker_folder: Path) -> Certificates:
    return make_certificates(broker_folder / "tls")


@pytest.fixture(scope="session")
def plain(broker_folder: Path) -> Iterator[Server]:
    """A Valkey that anyone may use, over TCP and a socket."""
    with running(valkey_server(broker_folder / "plain", "unixsocket v.sock")) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(broker_folder: Path) -> Iterator[Server]:
    """A Valkey with a password, and with a user that may do no more than docs/brokers.md says."""
    rules = [
        "requirepass s3cret/@:#",
        "user worker on >w0rker/@ ~app:* allchannels +@all -@admin -@dangerous +info +client|unblock",
    ]
    with running(valkey_server(broker_folder / "guarded", *rules)) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit(broker_folder: Path) -> Iterator[RabbitMQ]:
    with rabbitmq(broker_folder / "rabbit") as server:
        yield server


@pytest.fixture(scope="session")
def llmock() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture
def model(llmock: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    llmock.reset()
    for name, value in llmock.environment.items():
        monkeypatch.setenv(name, value)
    return llmock


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What celeryconfig.py says, to be filled."""
    module = ModuleType("celeryconfig")
    monkeypatch.setitem(sys.modules, "celeryconfig", module)
    return vars(module)
