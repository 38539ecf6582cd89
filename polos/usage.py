"""What model calls used and cost: the records that clients read, and what is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from pydantic import BaseModel

from polos.inputs import check_labels

UsageGroup = Literal["day", "agent", "model", "session"]
GROUPS: tuple[UsageGroup, ...] = get_args(UsageGroup)


class UsageTotals(BaseModel):
    """What model calls used together.

    Attributes:
        calls: How many there were: failed and interrupted ones, judges and summaries included.
        unpriced_calls: Those among them whose price nobody lists; they are not in `cost`.
        input_tokens: `cached_tokens` included.
        cached_tokens: Read from the provider's cache.
        cost: US dollars, None where no call has a price.
    """

    calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None


class UsageRow(UsageTotals):
    """The same for one day, agent, model or session.

    Attributes:
        of: The day in UTC (``2025-03-01``), the agent's id, ``provider/model``, or the session's id, which is
            None for runs that retention has removed.
    """

    of: str | None


class UsageReport(BaseModel):
    """What `PolosClient.usage` returns. `rows` are sorted by what they are of."""

    total: UsageTotals
    rows: list[UsageRow] = []


@dataclass(frozen=True)
class UsageRequest:
    """Which model calls to sum up. What is None restricts nothing. Times are aware."""

    by: UsageGroup | None = None
    since: datetime | None = None
    until: datetime | None = None
    agent: str | None = None
    model: str | None = None
    session: str | None = None
    run_id: str | None = None


def usage_request(
    by: str | None, since: datetime | timedelta | None, until: datetime | None, **labels: str | None
) -> UsageRequest:
    """Return a checked request; a duration as `since` means so long ago, a time without zone is UTC.

    Raises:
        ValueError: There is no such group, or a label cannot be one.
    """
    group = next((known for known in GROUPS if known == by), None)
    if by is not None and group is None:
        raise ValueError(f"usage is summed up by {', '.join(GROUPS)} or None, not by {by!r}")
    check_labels(**labels)
    start = datetime.now(UTC) - since if isinstance(since, timedelta) else since
    return UsageRequest(group, _aware(start), _aware(until), **labels)


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def usage_report(found: Iterable[dict[str, Any]], *, grouped: bool) -> UsageReport:
    """Return the report of sums as the journal reads them."""
    rows = [
        UsageRow(**row, total_tokens=row["input_tokens"] + row["output_tokens"])
        for row in sorted(found, key=lambda row: row["of"] or "")
    ]
    return UsageReport(total=_together(rows), rows=rows if grouped else [])


def _together(rows: list[UsageRow]) -> UsageTotals:
    costs = [row.cost for row in rows if row.cost is not None]
    names = [name for name in UsageTotals.model_fields if name != "cost"]
    counts = {name: sum(getattr(row, name) for row in rows) for name in names}
    return UsageTotals(**counts, cost=sum(costs) if costs else None)
