"""What a worker process keeps open for the tools of its runs, made when it is first needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

logger = logging.getLogger("polos.engine")


class Closeable(Protocol):
    """Something that ends with the worker."""

    async def close(self) -> None:
        """End it."""


ResourceT = TypeVar("ResourceT", bound=Closeable)


class Resources:
    """One of each kind; all are closed when the worker ends."""

    def __init__(self) -> None:
        self._kept: dict[type[Any], Any] = {}

    def of(self, kind: type[ResourceT], make: Callable[[], ResourceT]) -> ResourceT:
        """Return the one of `kind`."""
        if kind not in self._kept:
            self._kept[kind] = make()
        kept: ResourceT = self._kept[kind]
        return kept

    async def close(self) -> None:
        """Close all; what one raises is logged and keeps none of the others open."""
        kept, self._kept = list(self._kept.values()), {}
        for each, ended in zip(
            kept, await asyncio.gather(*(each.close() for each in kept), return_exceptions=True), strict=True
        ):
            if isinstance(ended, Exception):
                logger.error("%r could not be closed", type(each).__name__, exc_info=ended)
