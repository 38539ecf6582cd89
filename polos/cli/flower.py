"""`polos flower`: Celery's own web monitor for the workers of this folder, with safe defaults."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from polos.errors import ConfigurationError
from polos.settings import Settings

MAX_TASKS = 10_000  # kept in Flower's memory, some kilobytes each; its own default is ten times that
_OURS = {"address", "port", "basic-auth", "max-tasks"}
_AUTH_VARIABLES = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH")


def run_flower(
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 5555,
    basic_auth: Annotated[
        str | None, typer.Option(metavar="USER:PASSWORD", help="Who may enter; default: FLOWER_BASIC_AUTH.")
    ] = None,
    max_tasks: Annotated[int, typer.Option(min=1, help="Tasks kept in memory.")] = MAX_TASKS,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTION...]", help="Options of Flower itself, after --.")
    ] = None,
) -> None:
    """Watch the workers of this folder with Flower, on this machine only unless it asks for a password."""
    Settings.from_environment()  # a wrong setting is told by us, without a traceback
    environment = _environment(basic_auth)
    _check(address, environment, more or [])
    options = [f"--address={address}", f"--port={port}", f"--max_tasks={max_tasks}", *(more or [])]
    command = [sys.executable, "-m", "celery", "-A", "polos", "flower", *options]
    os.execve(sys.executable, command, environment)  # signals reach Flower itself


def _environment(basic_auth: str | None) -> dict[str, str]:
    """Return Flower's environment. The password goes there: a command line is seen by every user.

    Raises:
        ConfigurationError: It is not a user and a password.
    """
    if basic_auth is None:
        return dict(os.environ)
    for entry in basic_auth.split(","):
        user, colon, password = entry.partition(":")
        if not (user and colon and password):
            raise ConfigurationError("--basic-auth must be user:password (several: separated by commas)")
    return {**os.environ, "FLOWER_BASIC_AUTH": basic_auth}


def _check(address: str, environment: Mapping[str, str], more: Sequence[str]) -> None:
    """Refuse what would show the workers to strangers, who could end them.

    Raises:
        ConfigurationError: The address can be reached from elsewhere and nobody is asked for a password.
    """
    given = {_option(word) for word in more}
    if doubled := given & _OURS:
        names = ", ".join(sorted(f"--{name}" for name in doubled))
        raise ConfigurationError(f"Write {names} before the --, as options of 'polos flower' itself")
    asks = any(environment.get(name) for name in _AUTH_VARIABLES) or "auth" in given
    if not (asks or _is_loopback(address)):
        raise ConfigurationError(
            f"--address {address!r} can be reached from other machines, and whoever opens Flower can stop "
            "workers: set FLOWER_BASIC_AUTH=user:password (or --basic-auth), or listen on 127.0.0.1 behind a "
            "proxy that asks for a password"
        )


def _option(word: str) -> str:
    return word.lstrip("-").partition("=")[0].replace("_", "-")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, or nothing, which means every address
