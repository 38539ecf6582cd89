"""`MCPServer`: a server of tools, as an agent's definition names it. Nothing is connected here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from polos.errors import ConfigurationError
from polos.mcp.endpoint import Endpoint, Transport
from polos.mcp.environment import EnvironmentVariable, Expanded, Value
from polos.mcp.tool import MCPTool
from polos.queues import Queue, queue_of
from polos.registry import register
from polos.tools.family import ToolFamily
from polos.tools.tool import Tool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_APPROVALS = ("always", "none")


class MCPServer:
    """A server of tools that speaks the Model Context Protocol, for ``Agent(tools=[…])``.

    What it offers is asked for once per run. Each call is a run of its own, as with any tool; in Flower it
    is ``{name}.{tool}``. Values may be `EnvironmentVariable` objects or contain ``${NAME}``: they are read
    from the environment of the worker that connects, and are never stored.

    Args:
        name: Of the server: letters, digits, ``_`` and ``-``, at most 32.
        command: Program and arguments of a server that speaks over its standard input and output; the
            worker starts it.
        url: Address of a server that speaks streamable HTTP, or server-sent events with `transport`.
        env: Environment of the program, beside ``PATH``, ``HOME`` and the like.
        cwd: Folder the program is started in.
        headers: Headers of each HTTP request.
        transport: ``http`` or ``sse``, for `url`.
        allowed_tools: Names of the tools that may be used; None for all.
        approval: ``always``, or a function ``(ctx, input)`` that tells whether a person is asked, for all
            tools; or a dict of them by tool.
        prefix: Whether the model sees ``{name}_{tool}`` instead of ``{tool}``.
        timeout_seconds: For one call; by default POLOS_MCP_TIMEOUT_SECONDS.
        at_most_once: A call whose worker died fails, and says so, instead of being made again.
        required: Whether a run fails when the tools cannot be listed; otherwise it goes on without them.
        queue: Queue of the calls, which limits how many go at once.
        route: Celery queue of the fleet that executes the calls.
        on_start: Hooks before each call.
        on_end: Hooks after each call.

    Raises:
        ConfigurationError: An argument is of no use; the message says what to write instead.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, Value] | None = None,
        cwd: str | None = None,
        headers: Mapping[str, Value] | None = None,
        transport: Literal["http", "sse"] = "http",
        allowed_tools: Sequence[str] | None = None,
        approval: Any = None,
        prefix: bool = True,
        timeout_seconds: float | None = None,
        at_most_once: bool = False,
        required: bool = True,
        queue: str | Queue | dict[str, Any] | None = None,
        route: str | None = None,
        on_start: Any = None,
        on_end: Any = None,
    ) -> None:
        self.name = _checked_name(name)
        self._check_way(command, url, env, cwd, headers, transport)
        self.transport: Transport = "stdio" if url is None else transport
        self._command = tuple(command or ())
        self._url = url
        self._env = self._values(env, "env")
        self._cwd = cwd
        self._headers = self._values(headers, "headers")
        self.allowed_tools = self._names(allowed_tools)
        self.approval = self._checked_approval(approval)
        self.prefix = prefix
        self.timeout_seconds = self._seconds(timeout_seconds)
        self.at_most_once = at_most_once
        self.required = required
        self.family = ToolFamily(
            name,
            self.tool,
            description=f"Tools of the MCP server {name!r}",
            queue=queue_of(queue, f"{name}.*"),
            route=route,
        )
        self._tool_options = {
            "queue": self.family.declared_queue,
            "route": route,
            "on_start": on_start,
            "on_end": on_end,
        }
        register(self.family)

    def __repr__(self) -> str:
        return f"<MCPServer {self.name!r} {self.where}>"

    @property
    def where(self) -> str:
        """The program or the host, without anything that may be secret."""
        if self._url is None:
            return self._command[0]
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def tools_with_approval(self) -> tuple[str, ...]:
        """The tools that `approval` names."""
        return tuple(self.approval) if isinstance(self.approval, dict) else ()

    def allows(self, remote_name: str) -> bool:
        """Return whether the tool of this name may be used."""
        return self.allowed_tools is None or remote_name in self.allowed_tools

    def find_tool(self, remote_name: str) -> Tool | None:
        """Return the tool that the server knows as `remote_name`, as it is found by its id."""
        return self.family.member(f"{self.name}.{remote_name}")

    def tool(self, remote_name: str) -> MCPTool | None:
        """Return the tool that the server knows as `remote_name`; None when it may not be used.

        Whether the server has it is known only to the server.
        """
        if not self.allows(remote_name):
            return None
        return MCPTool(self, remote_name, approval=self._approval_of(remote_name), **self._tool_options)

    def endpoint(self, environment: Mapping[str, str] | None = None) -> Endpoint:
        """Return where and how to connect from this process.

        Raises:
            ToolServerError: An environment variable it needs is not set.
        """
        expanded = Expanded(self.name, environment)
        return Endpoint(
            name=self.name,
            transport=self.transport,
            command=tuple(expanded.value(part) for part in self._command),
            env={key: expanded.secret(value) for key, value in self._env.items()},
            cwd=self._cwd,
            url="" if self._url is None else expanded.address(self._url),
            headers={key: expanded.secret(value) for key, value in self._headers.items()},
            expanded=expanded,
        )

    def _approval_of(self, remote_name: str) -> Any:
        return self.approval.get(remote_name) if isinstance(self.approval, dict) else self.approval

    # -- checks

    def _check_way(
        self,
        command: object,
        url: object,
        env: object,
        cwd: object,
        headers: object,
        transport: object,
    ) -> None:
        if (command is None) == (url is None):
            raise self._refusal("give command=[program, …] or url='https://…', one of them")
        if command is not None:
            self._check_command(command)
            if headers:
                raise self._refusal("headers= are for a server with url=; a program gets env=")
        else:
            self._check_url(url)
            if env or cwd:
                raise self._refusal("env= and cwd= are for a server with command=; a URL gets headers=")
        if transport not in ("http", "sse"):
            raise self._refusal(f"transport={transport!r} cannot be used: give 'http' or 'sse'")

    def _check_command(self, command: object) -> None:
        if isinstance(command, str) or not isinstance(command, Sequence):
            raise self._refusal(f"command={command!r} must be a list, such as ['npx', '-y', 'some-server']")
        if not command or not command[0] or not all(isinstance(part, str) for part in command):
            raise self._refusal("command= must be a list of strings, the program first")

    def _check_url(self, url: object) -> None:
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
            raise self._refusal("url= must begin with http:// or https://")

    def _values(self, given: Mapping[str, Value] | None, what: str) -> dict[str, Value]:
        values = dict(given or {})
        for key, value in values.items():
            if not isinstance(key, str) or not isinstance(value, str | EnvironmentVariable):
                raise self._refusal(f"{what}[{key!r}] must be a string or an EnvironmentVariable")
        return values

    def _names(self, given: Sequence[str] | None) -> tuple[str, ...] | None:
        if given is None:
            return None
        if isinstance(given, str) or not all(isinstance(name, str) and name for name in given) or not given:
            raise self._refusal("allowed_tools= must be a list of names of tools, or None for all")
        return tuple(given)

    def _checked_approval(self, approval: Any) -> Any:
        if isinstance(approval, Mapping):
            for tool, value in approval.items():
                self._check_one_approval(value, f"approval[{tool!r}]")
                if self.allowed_tools is not None and tool not in self.allowed_tools:
                    raise self._refusal(f"approval= names {tool!r}, which is not among allowed_tools")
            return dict(approval)
        self._check_one_approval(approval, "approval")
        return approval

    def _check_one_approval(self, approval: Any, what: str) -> None:
        if approval is not None and approval not in _APPROVALS and not callable(approval):
            raise self._refusal(f"{what}={approval!r} cannot be used: give 'always', 'none' or a function")

    def _seconds(self, given: Any) -> float | None:
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
            raise self._refusal(f"timeout_seconds={given!r} cannot be used: give more than 0")
        return float(given)

    def _refusal(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"MCPServer {self.name!r}: {problem}")


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"MCPServer {name!r}: the name must be 1 to 32 letters, digits, '_' or '-', and begin with a "
            "letter or digit: the model sees it before the names of the tools"
        )
    return name
