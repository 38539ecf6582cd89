"""What model calls used: sums of a turn over all its attempts, and of a run over all its turns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Subquery, bindparam, case, exists, func, literal_column, select, update

from polos.journal.runs import RUNS, R
from polos.journal.statements import Part, Statement, Unit
from polos.journal.states import StepStatus
from polos.journal.steps import STEPS, S

P = bindparam
SUMMED = ("calls", "unpriced_calls", "input_tokens", "output_tokens", "cached_tokens")


@dataclass(frozen=True)
class Spent:
    """What model calls used, to be added to the sums of their turn.

    Attributes:
        agent: The agent that spoke.
        model: ``provider/model``.
        calls: How many there were.
        unpriced_calls: Of how many the price is not known.
        cached_tokens: How many of the input tokens were read from the provider's cache.
        cost: US dollars of those whose price is known, None for none.
    """

    agent: str | None = None
    model: str | None = None
    calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Spent) -> Spent:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Spent(
            other.agent or self.agent,
            other.model or self.model,
            **{name: getattr(self, name) + getattr(other, name) for name in SUMMED},
            cost=sum(costs) if costs else None,
        )

    def params(self) -> dict[str, Any]:
        """Return the parameters of `SPENT_VALUES`."""
        return {f"spent_{spec.name}": getattr(self, spec.name) for spec in fields(self)}


NOTHING = Spent()


def _given(name: str) -> Any:
    return P(f"spent_{name}", type_=S[name].type)


SPENT_VALUES: dict[str, Any] = {
    **{name: func.coalesce(_given(name), S[name]) for name in ("agent", "model")},
    **{name: S[name] + _given(name) for name in SUMMED},
    "cost": case((S.cost.is_(None), _given("cost")), else_=S.cost + func.coalesce(_given("cost"), 0.0)),
    "uncounted_calls": 0,
}
"""Sets a turn's sums, in the UPDATE that ends an attempt; the calls that were interrupted before are in."""


def sums_of(run: ColumnElement[Any]) -> Subquery:
    """Return one row with the sums over all turns of a run, by the names of the run's columns."""
    return (
        select(
            *(func.coalesce(func.sum(S[name]), 0).label(name) for name in SUMMED),
            func.coalesce(func.sum(S.input_tokens + S.output_tokens), 0).label("total_tokens"),
            func.sum(S.cost).label("cost"),
        )
        .where(S.run_id == run, S.kind == literal_column("'turn'"))
        .subquery("sums")
    )


_agent = RUNS.alias("agent_run")
# Only agents have turns: the steps of other runs, of which there may be thousands, are not looked through.
_SUMS = sums_of(
    select(_agent.c.id)
    .where(_agent.c.id == P("run"), _agent.c.kind == literal_column("'agent'"))
    .scalar_subquery()
)
SUMS: dict[str, ColumnElement[Any]] = dict(_SUMS.c.items())
"""What an UPDATE that ends the run `run` sets its sums to."""

RESUM = Statement(update(RUNS).where(R.id == P("run"), R.finished_at.is_not(None)).values(**SUMS))
"""Sums a run that has ended up again: for what was counted beside its end."""

_COUNT_LATE = Statement(
    update(STEPS)
    .where(
        S.run_id == P("run"),
        S.name == P("name"),
        S.attempt == P("attempt"),
        S.status != StepStatus.RUNNING.value,
        S.uncounted_calls > 0,
    )
    .values(**SPENT_VALUES)
    .returning(S.name)
)

# Sent whether or not anything was counted: it is left alone unless the attempt is still the turn's last.
_RESUM_LATE = Statement(
    update(RUNS)
    .where(
        R.id == P("run"),
        R.finished_at.is_not(None),
        exists().where(S.run_id == P("run"), S.name == P("name"), S.attempt == P("attempt")),
    )
    .values(**SUMS)
)


def count_late(run_id: str, name: str, attempt: int, spent: Spent) -> Unit:
    """Add what an attempt used whose turn was closed, or put back, meanwhile.

    Answers (name,), or nothing when it is counted already. Whoever claims the turn again counts the calls
    before its own, so that each is counted once.
    """
    params = {"run": run_id, "name": name, "attempt": attempt, **spent.params()}
    parts = (Part(_COUNT_LATE, params), Part(_RESUM_LATE, params, guard=False))
    return Unit(parts, (run_id,), order=(run_id, name), locks_first=True)
