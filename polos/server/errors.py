"""Every answer that is an error, in one shape: ``{"error": what to do about it, "error_type": its kind}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from polos.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger("polos.server")

TYPES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    422: "UNPROCESSABLE",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
}
SHOWN_PROBLEMS = 5
RETRY_SECONDS = "1"
UNAVAILABLE = "A service that polos needs does not answer. Try again soon; GET /ready says more"


class ApiError(HTTPException):
    """An answer with this status and message."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))


def missing(what: str, project: str) -> ApiError:
    """Return the 404 of what does not exist in a project, or only in another one."""
    return ApiError(404, f"There is no {what} in project {project!r}")


def error_answer(
    status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return the response of an error."""
    kind = TYPES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return JSONResponse({"error": message, "error_type": kind, **more}, status, dict(headers or {}))


def answer_errors(app: FastAPI) -> None:
    """Give every error of `app` its answer."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(ServiceUnavailableError, _on_unavailable)
    app.add_exception_handler(ConfigurationError, _on_unavailable)
    app.add_exception_handler(Exception, _on_bug)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if not isinstance(error, ApiError) and error.status_code == 404:
        message = f"There is nothing at {request.url.path!r}; see /docs for what there is"
    elif not isinstance(error, ApiError) and error.status_code == 405:
        message = f"{request.method} cannot be used at {request.url.path!r}; see /docs"
    return error_answer(error.status_code, message, error.headers)


async def _on_bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_answer(400, "; ".join(_problem(found) for found in error.errors()[:SHOWN_PROBLEMS]))


def _problem(found: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in found["loc"])
    reason = (found.get("ctx") or {}).get("error")
    return f"{where}: {found['msg']}" + (f" ({reason})" if isinstance(reason, str) else "")


async def _on_unavailable(_: Request, error: Exception) -> JSONResponse:
    return unavailable(error)


def unavailable(error: Exception) -> JSONResponse:
    """Return the response while a server is away; which, and how it is reached, goes to the log only."""
    logger.error("%s", error)
    return error_answer(503, UNAVAILABLE, {"Retry-After": RETRY_SECONDS})


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_answer(500, "The server failed; its log says why")
