"""Claims of what may have killed its worker: the oftener one died, the fewer others execute beside it.

After one death a suspect executes in the company of few, before the last that it may cause alone: who dies
then is the cause. Others that executed in the same process lose time, and are never judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from polos.engine.runtime import Runtime, Share, Slot
from polos.journal.statements import Rows, Statement, Unit


class NewClaim(Protocol):
    """Makes the unit that claims something."""

    def __call__(self, *, project: str, deployment: str, crashes: int) -> Unit:
        """Claim it if no more than `crashes` workers died while they executed it."""


@dataclass(frozen=True)
class Look:
    """How to read of how many deaths something is suspected; answers nothing when it is of none."""

    statement: Statement
    params: Mapping[str, Any]


def share_of_suspect(crashes: int, max_crashes: int) -> Share:
    """Return how many of the slots of a process a suspect takes: one at first, all before it is judged.

    In between, the square root and its like: the rounds it takes to find one of many are fewest so.
    """
    if crashes >= max_crashes:  # it is not executed again
        return lambda slots: 1
    return lambda slots: max(round(slots ** (crashes / (max_crashes - 1))), 1)


async def claimed(runtime: Runtime, slot: Slot, new_claim: NewClaim, look: Look) -> Rows:
    """Claim, in so little company as a suspect may have; answers what the claim does.

    Nothing is owned while it waits for others to end: should the process die of them, it was no part of it.
    """
    rows = await runtime.journal.do(_unit(runtime, new_claim, 0))
    if rows:
        return rows
    found = await runtime.journal.read(look.statement, **look.params)
    if not found:
        return []
    crashes, settings = int(found[0][0]), runtime.settings
    share = share_of_suspect(crashes, settings.max_crashes)
    if not await slot.widen(share, patience_seconds=settings.suspect_patience_seconds):
        return []  # sweepers ring again
    if runtime.draining:
        return []
    return await runtime.journal.do(_unit(runtime, new_claim, crashes))


def _unit(runtime: Runtime, new_claim: Callable[..., Unit], crashes: int) -> Unit:
    return new_claim(project=runtime.project, deployment=runtime.deployment, crashes=crashes)
