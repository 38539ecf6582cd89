"""The way from a run to the sessions of its worker; `mcp` takes a second to import and is loaded aside."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from typing import TYPE_CHECKING

from polos.engine.runtime import Runtime

if TYPE_CHECKING:
    from polos.mcp.connections import Connections

_HOMES = ("polos.mcp.connections", "polos.mcp.results")
# One thread loads at a time. Modules are per process, so what guards their loading is too.
_loading = threading.Lock()


async def connections_of(runtime: Runtime) -> Connections:
    """Return the sessions of this worker process."""
    if _loading.locked() or any(name not in sys.modules for name in _HOMES):
        # Not a daemon: one that the end of the program freezes in an import keeps that module's lock.
        loader = threading.Thread(target=_load, name="polos-mcp", daemon=False)
        loader.start()
        await asyncio.to_thread(loader.join)
    from polos.mcp.connections import Connections  # noqa: PLC0415 - see above

    return runtime.resources.of(Connections, lambda: Connections(runtime.settings))


def _load() -> None:
    with _loading:
        for name in _HOMES:
            importlib.import_module(name)
