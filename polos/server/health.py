"""Whether the server lives, and whether runs that are started would be executed. Anybody may ask."""

from fastapi import APIRouter
from starlette.responses import JSONResponse

from polos.server.errors import error_answer
from polos.server.fields import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/health")
async def answer_health() -> dict[str, str]:
    """Return that the process lives and answers."""
    return {"status": "ok"}


@router.get("/ready", response_model=None)
async def answer_readiness(services: ServicesDep) -> JSONResponse:
    """Return whether runs that are started would be executed; 503 with the reasons if not."""
    reasons = await services.readiness.reasons()
    if not reasons:
        return JSONResponse({"status": "ready"})
    return error_answer(503, f"Not ready: {'; '.join(reasons)}", {"Retry-After": "5"}, reasons=reasons)
