"""Which way a client takes: nothing but what it was told decides, and nothing has to listen for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos import Polos, PolosClient
from polos.direct import DirectTransport
from polos.errors import ConfigurationError
from polos.remote.transport import RemoteTransport
from polos.transport import ServerAddress, is_loopback, server_address

LOCAL, ELSEWHERE = "http://localhost:8080", "https://polos.example.com"
VARIABLES = ("POLOS_API_URL", "POLOS_API_KEY", "POLOS_LOCAL_MODE", "POLOS_TRANSPORT", "POLOS_PROJECT_ID")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("url", "key", "environment", "chosen"),
    [
        (None, None, {}, None),
        (None, "sk_1", {}, None),
        (None, None, {"POLOS_API_KEY": "sk_1"}, None),
        (LOCAL, None, {}, None),
        (None, None, {"POLOS_API_URL": LOCAL}, None),
        (None, None, {"POLOS_API_URL": LOCAL, "POLOS_LOCAL_MODE": "true"}, None),
        (LOCAL, "sk_1", {"POLOS_LOCAL_MODE": "True"}, None),
        (ELSEWHERE, "sk_1", {"POLOS_TRANSPORT": "direct"}, None),
        (LOCAL, "sk_1", {}, (LOCAL, "sk_1")),
        (LOCAL, None, {"POLOS_API_KEY": "sk_1"}, (LOCAL, "sk_1")),
        (f"{ELSEWHERE}/", "sk_1", {}, (ELSEWHERE, "sk_1")),
        (None, None, {"POLOS_API_URL": ELSEWHERE, "POLOS_API_KEY": "sk_1"}, (ELSEWHERE, "sk_1")),
        (None, "sk_1", {"POLOS_TRANSPORT": "http"}, (LOCAL, "sk_1")),
        (None, None, {"POLOS_TRANSPORT": "HTTP", "POLOS_LOCAL_MODE": "true"}, (LOCAL, None)),
        (ELSEWHERE, "sk_1", {"POLOS_LOCAL_MODE": "true"}, (ELSEWHERE, "sk_1")),
    ],
)
def test_the_way(
    url: str | None, key: str | None, environment: dict[str, str], chosen: tuple[str, str | None] | None
) -> None:
    address = server_address(url, key, environment)

    assert (None if address is None else (address.url, address.api_key)) == chosen


@pytest.mark.parametrize(
    ("url", "environment", "problem"),
    [
        (ELSEWHERE, {}, "needs an API key"),
        (LOCAL, {"POLOS_TRANSPORT": "http"}, "needs an API key"),
        (ELSEWHERE, {"POLOS_LOCAL_MODE": "true"}, "needs an API key"),
        ("http://127.evil.example", {"POLOS_LOCAL_MODE": "true"}, "needs an API key"),
        (LOCAL, {"POLOS_TRANSPORT": "carrier pigeon"}, "POLOS_TRANSPORT='carrier pigeon' cannot be used"),
        ("polos.example.com", {}, "is not the URL of a server"),
        ("ftp://polos.example.com", {}, "is not the URL of a server"),
        ("http://host:port", {}, "is not the URL of a server"),
        ("http://", {}, "is not the URL of a server"),
    ],
)
def test_what_cannot_be_used_is_refused(url: str, environment: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        server_address(url, None, environment)


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as raised:
        server_address("https://user:secret@host", None, {})
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(ServerAddress("https://user:secret@host", "sk_secret", False))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (LOCAL, True),
        ("http://127.0.0.5:1", True),
        ("http://[::1]:1", True),
        ("http://0.0.0.0:1", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://127.example.com", False),
    ],
)
def test_what_is_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_a_local_mode_elsewhere_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    server_address(ELSEWHERE, "sk_1", {"POLOS_LOCAL_MODE": "true"})
    assert "POLOS_LOCAL_MODE is ignored" in caplog.text


def test_a_client_has_the_way_that_was_chosen() -> None:
    assert isinstance(PolosClient()._transport, DirectTransport)
    assert isinstance(PolosClient(LOCAL)._transport, DirectTransport)
    assert isinstance(PolosClient(ELSEWHERE, "sk_1")._transport, RemoteTransport)


@pytest.mark.parametrize("variable", ["POLOS_API_KEY", "POLOS_LOCAL_MODE"])
def test_a_program_with_a_worker_needs_no_server(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Whatever the .env of a program that was written for one says."""
    monkeypatch.setenv("POLOS_API_URL", LOCAL)
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("POLOS_TRANSPORT", "http")

    assert isinstance(Polos()._transport, DirectTransport)


async def test_a_run_of_another_folder_is_missed_with_the_folder_looked_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def no_row(_: str) -> None:
        return None

    monkeypatch.delenv("POLOS_DATABASE_URL", raising=False)
    monkeypatch.setenv("POLOS_HOME", str(tmp_path))
    client = PolosClient()
    monkeypatch.setattr(client._transport, "_row", no_row)
    with pytest.raises(ValueError, match=r"There is no run 'gone'.*POLOS_HOME") as raised:
        await client.resume("w", "gone", "key", {})
    assert str(tmp_path) in str(raised.value)
