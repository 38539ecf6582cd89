"""What the server stands on: one backend for all projects, threads at the journal, counters in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from polos.backend import ClientBackend
from polos.connections import Connections, configured_app, installed_app
from polos.direct import DirectTransport
from polos.journal.threads import JournalThreads
from polos.server.readiness import Readiness
from polos.settings import Settings
from polos.streaming.counters import Counters
from polos.transport import Transport

if TYPE_CHECKING:
    from celery import Celery


@dataclass
class Services:
    """The connections of one server process.

    Attributes:
        closing: Set when the server is about to end: streams end themselves.
    """

    settings: Settings
    app: Celery
    connections: Connections
    journal: JournalThreads
    backend: ClientBackend
    counters: Counters
    readiness: Readiness
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def transport(self, project: str) -> Transport:
        """Return the way to the runs of a project, and to no others."""
        return self.direct(project)

    def direct(self, project: str) -> DirectTransport:
        """Return the same, with what only a direct way has."""
        return DirectTransport(self.settings, project_id=project, deployment_id=None, backend=self.backend)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Make the services of this process, and give them up at the end. Servers may be away meanwhile.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    settings = settings.with_values(embedded_worker="0")  # who serves runs is started elsewhere
    own = installed_app()
    app, connections = (own, own.polos[1]) if own is not None else configured_app(settings, {})
    counters = Counters(
        connections.redis, prefix=settings.redis_prefix, report=connections.redis_outage.report
    )
    journal = JournalThreads(connections.database)
    readiness = Readiness(settings, app, connections, journal)
    services = Services(settings, app, connections, journal, ClientBackend(settings), counters, readiness)
    try:
        yield services
    finally:
        services.closing.set()
        await services.backend.close()
        await counters.close()
        await asyncio.to_thread(services.journal.close)
        if own is None:
            app.close()
            connections.close()


def services_of(request: HTTPConnection) -> Services:
    """Return the services of the application that a request came to."""
    services: Services | None = getattr(request.app.state, "services", None)
    if services is None:
        raise RuntimeError(
            "The lifespan of this application was not started. Mounted in another one, it needs "
            "'async with app.router.lifespan_context(app)' in that one's lifespan"
        )
    return services
