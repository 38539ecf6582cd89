"""What this worker offers, and how the engine finds a definition by name."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from typing import Any

from polos.errors import ConfigurationError
from polos.registry import get_all_workflows, get_workflow
from polos.routes import Routes


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that define agents, tools and workflows.

    Raises:
        ConfigurationError: One cannot be imported; names it and the reason.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"The module {name!r} cannot be imported ({type(error).__name__}: {error}). "
                "Mend it, or correct POLOS_IMPORTS (comma separated module names)."
            ) from error


def offers(routing: Routes, routes: Collection[str]) -> list[tuple[str, str]]:
    """Return (kind, name) of everything defined in this process whose runs go to one of `routes`."""
    return [
        (definition.workflow_type, name)
        for name, definition in get_all_workflows().items()
        if routing.of_run(name, definition.route) in routes
    ]


def resolve(kind: str, name: str, caller: str | None) -> Any:
    """Return a definition: a tool from its calling agent's own list first, else by id; None when unknown."""
    if kind == "tool" and caller is not None:
        agent = get_workflow(caller)
        found = agent.find_run_tool(name) if agent is not None and hasattr(agent, "find_run_tool") else None
        if found is not None:
            return found
    definition = get_workflow(name)
    return definition if definition is not None and kind in {"", definition.workflow_type} else None
