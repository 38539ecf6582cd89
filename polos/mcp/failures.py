"""What goes wrong with a server, as messages that say what to do."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import httpx2
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, REQUEST_TIMEOUT

from polos.errors import ToolServerError
from polos.mcp.endpoint import Endpoint

SESSION_LOST = "Session terminated"  # the client's own words for a 404 in the middle of a session


class GarbageError(Exception):
    """A server goes on writing what is no message."""


class SessionLostError(ToolServerError):
    """An HTTP server knows the session no more, as after its restart; the request had no effect."""


class Doing(Enum):
    """What was under way."""

    CONNECT = "connect"
    LIST = "list"
    CALL = "call"


class Seen(Protocol):
    """A session, as far as messages tell of it."""

    endpoint: Endpoint
    garbage: str
    http_status: int | None

    @property
    def stderr(self) -> str:
        """The last lines of a program's standard error."""


def failure(
    seen: Seen, doing: Doing, error: BaseException | None, *, what: str = "", seconds: float
) -> ToolServerError:
    """Return the error for `error`, which is None where the server just ended."""
    cause = _innermost(error)
    if isinstance(cause, ToolServerError):
        return cause
    if isinstance(cause, MCPError) and str(cause) == SESSION_LOST:
        return SessionLostError(
            f"MCP server {seen.endpoint.name!r} has forgotten the session", retryable=True
        )
    problem, advice, retryable = _explained(seen, doing, cause, what, seconds)
    text = (
        f"MCP server {seen.endpoint.name!r} {problem}{_evidence(seen, cause)}{_doubt(doing, cause)}. {advice}"
    )
    return ToolServerError(seen.endpoint.hidden(text), retryable=retryable)


def _innermost(error: BaseException | None) -> BaseException | None:
    """Return the first cause inside groups of tasks, whose own texts tell nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _explained(
    seen: Seen, doing: Doing, cause: BaseException | None, what: str, seconds: float
) -> tuple[str, str, bool]:
    """Return what happened, what to do, and whether the same may succeed later."""
    endpoint = seen.endpoint
    is_program = endpoint.transport == "stdio"
    code = cause.code if isinstance(cause, MCPError) else None
    match cause:
        case FileNotFoundError() | PermissionError() | NotADirectoryError() if doing is Doing.CONNECT:
            program = endpoint.command[0] if endpoint.command else "?"
            return (
                f"cannot be started: {cause}",
                f"Install {program!r} where workers run, or mend command=",
                False,
            )
        case GarbageError():
            return "does not speak MCP", "Have it write for people to its standard error only", False
        case TimeoutError() if doing is Doing.CONNECT:
            return (
                f"did not answer within {seconds:g} s of being {'started' if is_program else 'connected to'}",
                "Start it by hand to see why, or raise POLOS_MCP_CONNECT_SECONDS",
                True,
            )
        case _ if isinstance(cause, TimeoutError) or code == REQUEST_TIMEOUT:
            return (
                f"did not answer {what!r} within {seconds:g} s",
                "Raise timeout_seconds= of MCPServer if it needs longer",
                True,
            )
        case httpx2.TransportError():
            return f"cannot be reached: {cause}", "Start it, or correct url=", True
        case _ if seen.http_status in (401, 403):
            return f"refuses with HTTP {seen.http_status}", "Check the key in headers=", False
        case _ if seen.http_status is not None and doing is Doing.CONNECT:
            retryable = seen.http_status >= 500 or seen.http_status == 429
            return f"answers with HTTP {seen.http_status}", "Check url= and the server", retryable
        case _ if cause is None or code == CONNECTION_CLOSED:
            ended = "ended" if is_program else "closed the connection"
            when = "before it had answered" if doing is Doing.CONNECT else f"in the middle of {what!r}"
            return f"{ended} {when}", "It is started again with the next call", True
        case _ if code == METHOD_NOT_FOUND and doing is not Doing.CALL:
            return f"offers no tools: {cause}", "Name a server that has some", False
        case MCPError():
            return f"refuses {what or 'the connection'}: {cause}", "Mend the request or the server", False
    return f"failed: {type(cause).__name__}: {cause}", "Look at the server", False


def _evidence(seen: Seen, cause: BaseException | None) -> str:
    """Return what the server said for people; only where it says something about the failure."""
    said = []
    if seen.garbage:
        said.append(f"it prints what is no message on its standard output: {seen.garbage!r}")
    if seen.stderr and _tells_by_stderr(cause):
        said.append(f"its standard error ends with: {seen.stderr}")
    return f" ({'; '.join(said)})" if said else ""


def _tells_by_stderr(cause: BaseException | None) -> bool:
    """Whether a program's standard error may explain what happened."""
    if isinstance(cause, MCPError):
        return cause.code == CONNECTION_CLOSED
    return not isinstance(cause, TimeoutError)


def _doubt(doing: Doing, cause: BaseException | None) -> str:
    """Return that an effect is uncertain, where it is."""
    if doing is not Doing.CALL or (isinstance(cause, MCPError) and cause.code not in _UNCERTAIN):
        return ""
    return "; the call may or may not have had its effect"


_UNCERTAIN = {CONNECTION_CLOSED, REQUEST_TIMEOUT}
