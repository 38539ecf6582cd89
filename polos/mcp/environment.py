"""Secrets of servers: named in declarations, read by the worker that connects, kept out of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from polos.errors import ConfigurationError, ToolServerError
from polos.redacting import hide, keep_from_libraries

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class EnvironmentVariable:
    """A value that the worker reads from its environment when it connects; `name` is the variable's."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"EnvironmentVariable({self.name!r}) cannot be used: give the name of a variable"
            )


Value = str | EnvironmentVariable


class Expanded:
    """Expands the values of one server, and knows afterwards what must not be told."""

    def __init__(self, server: str, environment: Mapping[str, str] | None = None) -> None:
        self._server = server
        self._environment = os.environ if environment is None else environment
        self._secrets: set[str] = set()

    def value(self, given: Value) -> str:
        """Return `given` with each ``${NAME}`` replaced.

        Raises:
            ToolServerError: A variable is not set here.
        """
        if isinstance(given, EnvironmentVariable):
            return self._read(given.name)
        return _REFERENCE.sub(lambda match: self._read(match[1]), given)

    def secret(self, given: Value) -> str:
        """Return what `value` does, and keep all of it out of texts: a header may hold a literal key."""
        expanded = self.value(given)
        self._keep(expanded, *expanded.split()[1:])  # "Bearer …": the key alone, too
        return expanded

    def address(self, given: str) -> str:
        """Return a URL expanded; its password and the values of its query are kept out of texts."""
        expanded = self.value(given)
        parts = urlsplit(expanded)
        self._keep(parts.query, parts.password or "", *(value for _, value in parse_qsl(parts.query)))
        return expanded

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets."""
        return hide(text, self._secrets)

    def _read(self, name: str) -> str:
        value = self._environment.get(name)
        if value is None:
            raise ToolServerError(
                f"MCP server {self._server!r} needs the environment variable {name}, which is not set on "
                "this worker; set it where workers start"
            )
        self._keep(value)
        return value

    def _keep(self, *secrets: str) -> None:
        self._secrets.update(secrets)
        keep_from_libraries(secrets)
