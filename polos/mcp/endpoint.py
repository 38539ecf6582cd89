"""Where a server is, as seen from one process: what a declaration comes to once its secrets are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from polos.mcp.environment import Expanded

Transport = Literal["stdio", "http", "sse"]


@dataclass(frozen=True, repr=False)
class Endpoint:
    """Where and how to connect, with secrets read: never stored, never shown."""

    name: str
    transport: Transport
    command: tuple[str, ...]
    env: dict[str, str]
    cwd: str | None
    url: str
    headers: dict[str, str]
    expanded: Expanded

    def __repr__(self) -> str:
        return f"<Endpoint {self.name!r}>"

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets of this server."""
        return self.expanded.hidden(text)


class Server(Protocol):
    """A declared server, as far as calling it goes."""

    name: str
    timeout_seconds: float | None
    at_most_once: bool

    def endpoint(self) -> Endpoint:
        """Return where and how to connect from this process."""
