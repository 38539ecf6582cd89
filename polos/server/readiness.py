"""What keeps runs from being executed: a server that is away, or workers that do nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from polos.connections import Connections
from polos.errors import PolosError
from polos.journal.progress import Progress, read_progress
from polos.journal.threads import JournalThreads
from polos.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("polos.server")

CHECK_SECONDS = 4.0
KEPT_SECONDS = 1.0  # an answer is given again for so long, however many ask


class Readiness:
    """What keeps runs from being executed; looked at once for all who ask at a time."""

    def __init__(
        self, settings: Settings, app: Celery, connections: Connections, journal: JournalThreads
    ) -> None:
        self._settings = settings
        self._app = app
        self._connections = connections
        self._journal = journal
        self._looking = asyncio.Lock()
        self._reasons: list[str] = []
        self._looked_at = float("-inf")

    async def reasons(self) -> list[str]:
        """Return why the server is not ready; nothing if it is."""
        async with self._looking:
            if time.monotonic() - self._looked_at > KEPT_SECONDS:
                self._reasons = await self._look()
                self._looked_at = time.monotonic()
            return self._reasons

    async def _look(self) -> list[str]:
        found = await asyncio.gather(self._fleet(), self._broker())
        return [reason for reason in found if reason is not None]

    async def _fleet(self) -> str | None:
        settings = self._settings
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                progress = await self._journal.call(
                    lambda journal: read_progress(
                        journal,
                        patience_seconds=settings.ready_patience_seconds,
                        rings=_rings_within(settings),
                        silence_limit_seconds=settings.silence_limit_seconds,
                    )
                )
        except (PolosError, TimeoutError) as error:
            logger.warning("Not ready: %s", error)
            return "the database does not answer, or not as this version needs it"
        return _stands(progress)

    async def _broker(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await asyncio.to_thread(self._connections.check, self._app)
        except (PolosError, TimeoutError) as error:
            logger.warning("Not ready: %s", error)
            return "the broker does not answer, or not as it is configured"
        return None


def _rings_within(settings: Settings) -> int:
    """Return how often the sweepers ring for what nobody takes within the patience."""
    pause, passed, rings = settings.ring_again_seconds, 0.0, 0
    while passed < settings.ready_patience_seconds:
        passed += max(pause, 0.1)
        pause = min(pause * 2, settings.ring_again_max_seconds)
        rings += 1
    return max(rings, 1)


def _stands(progress: Progress) -> str | None:
    if progress.late and not progress.live_workers:
        return f"{progress.late} runs or turns wait, and no worker lives"
    if progress.late_offered and not progress.is_executing:
        return (
            f"{progress.late_offered} runs or turns wait, and none of {progress.live_workers} live workers "
            "executes anything"
        )
    return None
