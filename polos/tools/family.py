"""Tools whose names only a server knows: one entry of the registry stands for all of them."""

from __future__ import annotations

from collections.abc import Callable

from polos.queues import Queue
from polos.registry import is_id
from polos.tools.tool import Tool

ANY = "*"  # ends the id of a family


class ToolFamily(Tool):
    """All tools whose ids begin with ``{name}.``; a worker that defines it offers each of them.

    `make` returns the tool for what follows, or None where there can be none. The family itself cannot run.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[str], Tool | None],
        *,
        description: str,
        queue: Queue,
        route: str | None,
    ) -> None:
        self._name = name
        self._make = make
        super().__init__(f"{name}.{ANY}", description, queue=queue, route=route, is_registered=False)

    def member(self, id: str) -> Tool | None:
        """Return the tool of this id, or None."""
        name, _, rest = id.partition(".")
        return self._make(rest) if name == self._name and rest not in ("", ANY) and is_id(id) else None
