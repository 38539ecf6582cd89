"""The kinds of values that requests are made of, as they are checked and documented."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse

from polos import serialization
from polos.serialization import is_storable
from polos.server.errors import TYPES
from polos.server.services import Services, services_of

MOST_IN_A_PAGE = 200
FURTHEST_OFFSET = 10_000
LARGEST_SEQUENCE_ID = 2**63 - 1


class Problem(BaseModel):
    """What every error looks like."""

    error: str
    error_type: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors of an endpoint; 400, 401, 403, 429 and 503 are of all."""
    every = {400, 401, 403, 413, 429, 503, *statuses}
    return {status: {"model": Problem, "description": TYPES[status]} for status in sorted(every)}


def storable(text: str) -> str:
    """Return `text` if the database can hold it, else raise ValueError."""
    if not is_storable(text):
        raise ValueError("must not hold NUL or halves of surrogate pairs")
    return text


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Label = Annotated[str, StringConstraints(min_length=1, max_length=400), AfterValidator(storable)]
Word = Annotated[str, StringConstraints(max_length=1024), AfterValidator(storable)]
Seconds = Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False)]
Moment = Annotated[datetime, AfterValidator(_aware)]
Limit = Annotated[int, Query(ge=1, le=MOST_IN_A_PAGE)]
Offset = Annotated[int, Query(ge=0, le=FURTHEST_OFFSET, description="Use a cursor or times to go further.")]
SequenceId = Annotated[int, Field(ge=0, le=LARGEST_SEQUENCE_ID)]


def _services(request: Request) -> Services:
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]


class JsonAnswer(JSONResponse):
    """JSON by our own codec: values may hold what UTF-8 cannot, such as halves of surrogate pairs."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return serialization.dumps(content).encode()


def seconds_of(moment: datetime | None) -> float | None:
    """Return a time as seconds since the epoch."""
    return None if moment is None else moment.timestamp()
