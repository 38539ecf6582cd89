from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from benches import Bench, wait_until
from written import polos

SECRET = "open-sesame"


@pytest.fixture(autouse=True)
def no_flower_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("address", ["0.0.0.0", "", "flower.example.com", "::", "192.168.1.4"])
def test_address_that_others_reach_is_refused_without_a_password(address: str) -> None:
    refused = polos("flower", "--address", address)
    assert refused.exit_code == 2
    assert "FLOWER_BASIC_AUTH" in refused.output


def test_address_after_the_dashes_cannot_slip_by() -> None:
    refused = polos("flower", "--", "--address=0.0.0.0")
    assert (refused.exit_code, "--address before" in refused.output) == (2, True)


@pytest.mark.parametrize("word", ["ada", "ada:", ":secret"])
def test_half_a_login_is_refused(word: str) -> None:
    refused = polos("flower", "--basic-auth", word)
    assert (refused.exit_code, "user:password" in refused.output) == (2, True)


def test_flower_asks_for_the_password_and_shows_it_to_no_other_user(bench: Bench) -> None:
    """It is not on the command line, and the tasks kept in memory are bounded."""
    port = free_port()
    command = bench.start(
        "flower", "--port", str(port), "--basic-auth", f"ada:{SECRET}", "--", "--read_only=True"
    )
    wait_until(lambda: answer(port) == 401, seconds=60)
    assert answer(port, "ada:wrong") == 401
    assert answer(port, f"ada:{SECRET}") == 200
    with contextlib.suppress(FileNotFoundError):  # elsewhere than on Linux
        words = Path(f"/proc/{command.pid}/cmdline").read_text().split("\0")
        assert SECRET not in " ".join(words)
        assert {"--address=127.0.0.1", "--max_tasks=10000", "--read_only=True"} <= set(words)
    command.terminate()
    assert command.wait(timeout=20) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answer(port: int, login: str = "") -> int:
    """Return the status of Flower's list of workers, 0 while nothing answers."""
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    url = f"http://127.0.0.1:{port}/workers"
    if login:
        user, _, password = login.partition(":")
        passwords.add_password(None, url, user, password, is_authenticated=True)
    try:
        with opener.open(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
