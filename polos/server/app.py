"""The ASGI application of the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import polos
from polos.server import (
    approval_page,
    approvals,
    definitions,
    events,
    fleet,
    health,
    keys,
    lifecycle,
    memories,
    queues,
    run_lists,
    runs,
    schedules,
    sessions,
    triggers,
    usage,
)
from polos.server.body_limit import BodyLimit
from polos.server.errors import answer_errors
from polos.server.gate import API, Gate
from polos.server.services import open_services
from polos.settings import Settings

CORS_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Project-ID",
    "X-Project-ID",
]
_bearer = HTTPBearer(
    auto_error=False, description="An API key, sk_…"
)  # for the documents; the gate checks it


class _Application(FastAPI):
    """FastAPI, documented as it answers: what does not fit is a 400 of ours, never its 422."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
        return super().openapi()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it connects when it starts, and needs database and broker only to answer.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    settings = settings or Settings.from_environment()
    app = _Application(
        title="Polos",
        version=polos.__version__,
        summary="Durable AI agents on Celery.",
        openapi_url="/api-docs/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        lifespan=_lifespan,
        middleware=_middleware(settings),
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    app.include_router(health.router)
    app.include_router(approval_page.router)
    app.include_router(_api(), prefix=API)
    answer_errors(app)
    return app


def _api() -> APIRouter:
    # Of two paths that fit, the first is taken: those that end in any id come last.
    api = APIRouter(dependencies=[Depends(_bearer)])
    rooms = (
        run_lists,
        approvals,
        lifecycle,
        runs,
        events,
        memories,
        sessions,
        fleet,
        keys,
        queues,
        schedules,
        triggers,
        usage,
        definitions,
    )
    for room in rooms:
        api.include_router(room.router)
    return api


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_services(app.state.settings) as services:
        app.state.services = services
        yield


def _middleware(settings: Settings) -> list[Middleware]:
    """Return what a request passes, the outermost first."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=CORS_HEADERS,
        expose_headers=["X-Next-Cursor", "Retry-After"],
    )
    limit = Middleware(BodyLimit, max_bytes=settings.max_request_bytes)
    return [*([cors] if settings.cors_origins else []), limit, Middleware(Gate)]
