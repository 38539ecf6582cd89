"""`polos server` and `polos keys`, as they are typed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli.benches import Bench, open_bench, wait_until
from cli.written import polos, without_settings
from services import sqlite_url
from stand import API


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a journal."""
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("POLOS_DATABASE_URL", sqlite_url(tmp_path))
    return tmp_path


def created(*arguments: str) -> dict[str, Any]:
    done = polos("keys", "create", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_key_is_shown_once(here: Path) -> None:
    done = polos("keys", "create", "web", "--project", "shop")
    assert re.fullmatch(r"sk_[A-Za-z0-9]{32}\n", done.stdout)
    secret = done.stdout.strip()
    listed = polos("keys", "list", "--project", "shop").stdout
    assert "web" in listed
    assert secret[-4:] in listed
    assert secret not in listed + polos("keys", "list", "--json").stdout


def test_keys_are_of_the_project_of_the_environment_by_default(here: Path) -> None:
    assert created("web")["project"] == "default"


def test_a_key_is_revoked(here: Path) -> None:
    key = created("web")
    assert polos("keys", "revoke", key["id"]).exit_code == 0
    assert json.loads(polos("keys", "list", "--json").stdout) == []
    again = polos("keys", "revoke", key["id"])
    assert (again.exit_code, "no live key" in again.output) == (2, True)


def test_an_admin_key_is_one_of_those_that_say_so(here: Path) -> None:
    assert (created("a")["is_admin"], created("b", "--admin")["is_admin"]) == (False, True)


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "a\0b"])
def test_a_name_that_is_none_is_refused(here: Path, name: str) -> None:
    assert polos("keys", "create", name).exit_code == 2


def test_the_eleventh_key_of_a_project_is_refused(here: Path) -> None:
    for number in range(10):
        created(str(number))
    done = polos("keys", "create", "more")
    assert (done.exit_code, "revoke one" in done.output) == (2, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_local_mode_listens_on_this_machine_only(
    here: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("POLOS_LOCAL_MODE", "true")
    done = polos("server", "--host", host)
    assert (done.exit_code, "POLOS_LOCAL_MODE" in done.output) == (2, True)


def test_a_database_that_is_away_is_told_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_DATABASE_URL", "postgresql://127.0.0.1:1/db")
    done = polos("server")
    assert (done.exit_code, "POLOS_DATABASE_URL" in done.output) == (2, True)


# -- the process


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


def test_the_server_ends_at_once_and_tells_its_streams(bench: Bench, valkey_url: str) -> None:
    """It would wait for streams, which have no end of their own."""
    settings = {
        "POLOS_DATABASE_URL": sqlite_url(bench.folder),
        "POLOS_BROKER_URL": f"{valkey_url}/10",
        "POLOS_LOCAL_MODE": "true",
    }
    process = bench.start("server", "--port", "0", **settings)
    assert process.stdout is not None
    port = None
    while port is None:
        line = process.stdout.readline()
        assert line, "the server ended"
        port = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port[1]}", timeout=30) as client,
        client.stream("GET", f"{API}/events/stream", params={"topic": "news"}) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        process.send_signal(signal.SIGTERM)
        assert any("the server ends" in line for line in lines)
    assert process.wait(20) == 0
    wait_until(lambda: not bench.living(), seconds=20)
