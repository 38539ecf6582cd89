"""`UsageLimits`: how much a run, or a session, may use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from polos.inputs import problems

_AMOUNTS = ("max_cost", "max_tokens", "max_requests", "deadline_seconds")
PAYLOAD_KEY = "usage_limits"
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class UsageLimits(BaseModel):
    """Hard limits: once one is used up, the run fails before its next model call.

    All model calls count: failed and interrupted ones, judges and summaries too. A call that is under way
    is finished, so that a limit may be exceeded by the calls that were under way when it was reached.

    Attributes:
        max_cost: US dollars. Needs models whose price is known.
        max_tokens: Input and output together.
        max_requests: Model calls.
        deadline_seconds: Since the run was created, whatever it waited for; a model call is broken off then.
        scope: ``run`` counts the run with all runs below it, ``session`` all runs of its session that are
            still kept; a run without a session is counted as ``run``.

    Raises:
        ValueError: An amount is not above 0, none is given, or the scope is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_cost: Dollars | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_requests: Annotated[int, Field(gt=0)] | None = None
    deadline_seconds: Dollars | None = None
    scope: Literal["run", "session"] = "run"

    @model_validator(mode="after")
    def _limits_something(self) -> UsageLimits:
        if all(getattr(self, name) is None for name in _AMOUNTS):
            raise ValueError(f"limits that limit nothing: give one of {', '.join(_AMOUNTS)}")
        return self

    def over(self, others: UsageLimits) -> UsageLimits:
        """Return these limits, and from `others` those that are not among them."""
        return UsageLimits(**{**others.model_dump(exclude_none=True), **self.model_dump(exclude_none=True)})


@dataclass(frozen=True)
class Budget:
    """Limits, and what they count: a run with all below it since it was created, or its session."""

    limits: UsageLimits
    run_id: str
    session_id: str | None
    since: float

    @property
    def counts_session(self) -> bool:
        """Whether a session is counted: a run without one is all there is of it."""
        return self.limits.scope == "session" and self.session_id is not None


def check_usage_limits(what: str, given: UsageLimits | Mapping[str, Any] | None) -> UsageLimits | None:
    """Return `given` as limits, None for none.

    Raises:
        ValueError: It holds limits of no use; the message begins with `what`.
        TypeError: It is no `UsageLimits`.
    """
    if given is None or isinstance(given, UsageLimits):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{what}: usage_limits must be UsageLimits(…), not {given!r}")
    try:
        return UsageLimits.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{what}: usage_limits are of no use: {problems(error)}") from error


def with_usage_limits(
    payload: dict[str, Any], what: str, given: UsageLimits | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return an agent payload with the limits of this one run.

    Raises:
        ValueError, TypeError: The limits are of no use.
    """
    limits = check_usage_limits(what, given)
    return payload if limits is None else {**payload, PAYLOAD_KEY: limits.model_dump(exclude_none=True)}


def budgets_of(agent_limits: UsageLimits | None, run: Mapping[str, Any]) -> list[Budget]:
    """Return all that limits a run: what it was given, else what its agent has, and what runs above it have.

    Args:
        agent_limits: Of the agent whose run it is.
        run: Of its row: id, session_id, created_at, input and usage_limits, both JSON text.
    """
    own = [
        Budget(limits, run["id"], run["session_id"], run["created_at"])
        for limits in _own(agent_limits, run["input"])
    ]
    return [*own, *_inherited(run["usage_limits"])]


def _own(agent_limits: UsageLimits | None, input_text: str | None) -> list[UsageLimits]:
    given = _given(input_text)
    if given is None or agent_limits is None:
        return [limits for limits in (given, agent_limits) if limits is not None]
    return [given.over(agent_limits)] if given.scope == agent_limits.scope else [given, agent_limits]


def _given(input_text: str | None) -> UsageLimits | None:
    if input_text is None or f'"{PAYLOAD_KEY}"' not in input_text:
        return None
    payload = json.loads(input_text)
    given = payload.get(PAYLOAD_KEY) if isinstance(payload, dict) else None
    return None if given is None else UsageLimits.model_validate(given)


def _inherited(text: str | None) -> list[Budget]:
    found = [] if text is None else json.loads(text)
    return [Budget(**{**one, "limits": UsageLimits.model_validate(one["limits"])}) for one in found]


def budgets_text(budgets: Iterable[Budget]) -> str | None:
    """Return budgets as the runs below a run get them, None for none."""
    listed = [{**vars(one), "limits": one.limits.model_dump(exclude_none=True)} for one in budgets]
    return json.dumps(listed) if listed else None


def seconds_left(budgets: Iterable[Budget], now: float) -> float | None:
    """Return how long it is until the first deadline, None when there is none."""
    ends = [one.since + one.limits.deadline_seconds for one in budgets if one.limits.deadline_seconds]
    return min(ends) - now if ends else None
