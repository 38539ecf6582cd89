"""Which live worker serves what, and which deployment a new run goes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from polos.journal.statements import Params, Rows, Statement
from polos.journal.workers import READ_NEWEST_DEPLOYMENT, READ_OFFERING, READ_OFFERS
from polos.registry import family_id
from polos.settings import Settings


class Journal(Protocol):
    """What reads the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of a query."""


@dataclass(frozen=True)
class Placement:
    """Which deployment a new run goes to, of what kind it is, and whether a live worker offers it."""

    deployment: str
    kind: str | None
    is_served: bool


class Offers:
    """What live workers offer, as the journal knows it."""

    def __init__(self, journal: Journal, settings: Settings) -> None:
        self._journal = journal
        self._settings = settings

    def find_deployment(self, project: str, name: str, kind: str | None, deployment: str | None) -> Placement:
        """Return where a new run of `name` goes.

        That is the given deployment, else the newest that a live worker serves it in; else this process's
        own, where its embedded worker will serve it, or the newest that is known.
        """
        offers = self._offers_of(project, name) or self._offers_of(project, family_id(name))
        fitting = [offer for offer in offers if deployment in {None, offer[0]} and kind in {None, offer[1]}]
        if fitting:
            return Placement(fitting[0][0], fitting[0][1], is_served=True)
        return Placement(deployment or self._default_deployment(project, kind), kind, is_served=False)

    def _offers_of(self, project: str, name: str) -> Rows:
        silence = self._settings.silence_limit_seconds
        return self._journal.read(READ_OFFERS, {"project": project, "name": name, "silence": silence})

    def _default_deployment(self, project: str, kind: str | None) -> str:
        if kind is not None and self._settings.embedded_worker != "0":
            return self._settings.deployment_id
        newest = self._journal.read(READ_NEWEST_DEPLOYMENT, {"project": project})
        return newest[0][0] if newest else self._settings.deployment_id

    def why_unserved(self, record: dict[str, Any]) -> str | None:
        """Return what is missing for a run that nobody takes, None when a live worker offers it.

        One that waits for its queue will be taken; `polos queues` says how long the line is.
        """
        kind, name = record["workflow_type"], record["workflow_id"]
        deployment = record["deployment_id"]
        names = [name, family_id(name)] if kind == "tool" else [name]
        if any(self._offering(record["project_id"], deployment, kind, each) for each in names):
            return None
        return (
            f"No live worker serves {kind or 'workflow'} {name!r} of deployment {deployment!r}: "
            f"run {record['id']} waits. "
            f"Start one with 'polos worker MODULE', where MODULE defines {name!r}, or "
            "'POLOS_IMPORTS=MODULE celery -A polos worker'."
        )

    def _offering(self, project: str, deployment: str, kind: str, name: str) -> Rows:
        params = {
            "project": project,
            "deployment": deployment,
            "kind": kind,
            "name": name,
            "silence": self._settings.silence_limit_seconds,
        }
        return self._journal.read(READ_OFFERING, params)
