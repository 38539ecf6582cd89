"""The gate before the API, which nothing below ``/api/v1`` passes by: who asks, and how often."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from polos.approval_links import right_of
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal.keys import PREFIX, recognise
from polos.serialization import is_storable
from polos.server.errors import ApiError, error_answer, unavailable
from polos.server.local import refuse_strangers
from polos.server.services import Services, services_of

API = "/api/v1"
PROJECT_HEADERS = ("x-project-id", "project-id")
LONGEST_PROJECT = 255
WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Caller:
    """Who asks. `key_id` is None in local mode; `approval` is the one wait that a link is for."""

    project: str
    key_id: str | None
    is_admin: bool
    approval: tuple[str, str] | None = None
    key_name: str | None = None


class Gate:
    """ASGI middleware: lets a request of the API in with its `Caller`, or answers it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and _is_of_api(scope):
            try:
                scope.setdefault("state", {})["caller"] = await self._admitted(HTTPConnection(scope))
            except ApiError as error:
                refusal = error_answer(error.status_code, str(error.detail), error.headers)
                await refusal(scope, receive, send)
                return
            except (ServiceUnavailableError, ConfigurationError) as error:
                await unavailable(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admitted(self, request: HTTPConnection) -> Caller:
        services = services_of(request)
        if (token := _link_token(request)) is not None:
            return _link_holder(token, services.settings.approval_secret)
        if services.settings.local_mode == "true":
            refuse_strangers(request, services.settings.cors_origins)
            return Caller(_one_project(request) or services.settings.project_id, None, is_admin=True)
        caller = await _key_holder(services, request)
        if _one_project(request) not in {None, caller.project}:
            raise ApiError(403, "This key is not one of the project that was named; leave X-Project-ID out")
        await _count(services, caller)
        return caller


def _is_of_api(scope: Scope) -> bool:
    """Whether a path may be one of the API, with or without the prefix under which we are mounted."""
    path: str = scope["path"]
    paths = (path, path.removeprefix(scope.get("root_path", "")))
    return any(each == API or each.startswith(f"{API}/") for each in paths)


async def _key_holder(services: Services, request: HTTPConnection) -> Caller:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret.strip().startswith(PREFIX):
        raise _unknown("Send an API key of the project as 'Authorization: Bearer sk_…'")
    key = await services.journal.call(lambda journal: recognise(journal, secret.strip()))
    if key is None:
        raise _unknown("This API key is unknown or was revoked; make one with 'polos keys create'")
    return Caller(key.project, key.id, key.is_admin, key_name=key.name)


def _link_token(request: HTTPConnection) -> str | None:
    """Return the token of a link, which only the paths of approvals take."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return request.query_params.get("token") if path.startswith(f"{API}/approvals/") else None


def _link_holder(token: str, secret: str) -> Caller:
    try:
        right = right_of(token, secret)
    except ValueError as error:
        raise _unknown(str(error)) from error
    return Caller(right.project, None, is_admin=False, approval=(right.root_id, right.step_key))


def _unknown(message: str) -> ApiError:
    return ApiError(401, message, {"WWW-Authenticate": "Bearer"})


def _one_project(request: HTTPConnection) -> str | None:
    """Return the project that the request names, if it names one."""
    named = {request.headers[name] for name in PROJECT_HEADERS if name in request.headers}
    named |= set(request.query_params.getlist("project_id"))
    if len(named) > 1:
        raise ApiError(400, "The request names several projects; leave X-Project-ID and project_id out")
    project = named.pop() if named else None
    if project is not None and (not project or len(project) > LONGEST_PROJECT or not is_storable(project)):
        raise ApiError(400, f"X-Project-ID {project[:80]!r} is no project id")
    return project


async def _count(services: Services, caller: Caller) -> None:
    """Count the request against its key's limit. While Redis is away nobody counts."""
    limit = services.settings.requests_per_minute
    if not limit:
        return
    now = time.time()
    window = int(now // WINDOW_SECONDS)
    count = await services.counters.add(
        f"requests:{caller.key_id}:{window}", expire_seconds=2 * WINDOW_SECONDS
    )
    if count is not None and count > limit:
        wait = str(int((window + 1) * WINDOW_SECONDS - now) + 1)
        raise ApiError(429, f"This key made more than {limit} requests in this minute", {"Retry-After": wait})


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # fails where the gate was not passed
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
