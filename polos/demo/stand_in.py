"""The model server of the demo when no real model is asked: it speaks OpenAI's protocol and keeps a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polos.demo.question import FIRST_CITIES, MORE_CITIES
from polos.errors import ConfigurationError

ANSWER = (
    "It is warmest in Cairo, with 34 °C and a clear sky, and coldest in Reykjavik, where it snows at -1 °C. "
    "The other six cities lie between 4 and 31 °C."
)


class StandIn:
    """A running server that gives the answers of the demo, in order."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make workers ask this server, and no proxy on the way to it."""
        return {
            "OPENAI_BASE_URL": self._server.base_url("openai"),
            "OPENAI_API_KEY": "demo",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def requests(self) -> list[str]:
        """Return the log: for each request a fingerprint of path and body, oldest first."""
        return [record.fingerprint for record in self._server.state.journal.records(wait=2.0)]


@contextmanager
def stand_in_model() -> Iterator[StandIn]:
    """Run the server in a thread of this process, on a free port of loopback.

    Raises:
        ConfigurationError: llmock, which plays the provider, is not installed.
    """
    try:
        from llmock.scenarios import Reply, ToolCall  # noqa: PLC0415 - an extra
        from llmock.testing import LLMockServer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "The demo needs the package that plays the model server: pip install 'polos[demo]'"
        ) from error
    with LLMockServer() as server:
        for cities in (FIRST_CITIES, MORE_CITIES):
            calls = tuple(ToolCall("get_weather", {"city": city}) for city in cities)
            server.state.scenarios.add(Reply(tool_calls=calls))
        server.state.scenarios.add(Reply(text=ANSWER))
        yield StandIn(server)
