"""The client that a definition is called with: given, or the default one; from code that awaits or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from polos.handles import ExecutionHandle

T = TypeVar("T")


class RunStarter(Protocol):
    """What `Workflow.run` and `invoke` need of a client; `PolosClient` and `Polos` both have it."""

    @property
    def invoke(self) -> Callable[..., Awaitable[ExecutionHandle]]:
        """Start a run, by id and payload and with options by name, and return its handle."""
        ...

    async def wait(self, execution_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the record of a run when it has ended."""
        ...


def client_and_payload(client: Any, payload: Any) -> tuple[RunStarter, Any]:
    """Return the client to use and the payload; the payload may have been given in place of a client.

    Raises:
        TypeError: Both were given, but the first is not a client.
    """
    if callable(getattr(client, "invoke", None)) and not isinstance(client, BaseModel):
        return client, payload
    if client is not None and payload is not None:
        raise TypeError(f"{client!r} is not a client: pass a PolosClient or Polos first, or only the payload")
    from polos.client import default_client  # noqa: PLC0415 - definitions must not cost a database driver

    return default_client(), payload if client is None else client


def call_sync(client: Any, begin: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine returns that `begin` makes for a client, which may be the default one."""
    from polos.client import SyncClient  # noqa: PLC0415 - reads .env, which a definition must not

    asynchronous = client.client if isinstance(client, SyncClient) else client
    starter: Any
    starter, _ = client_and_payload(asynchronous, None)
    result: T = starter.sync.call(begin(asynchronous))
    return result


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are given, so that starters need know no others."""
    return {name: value for name, value in options.items() if value is not None}
