"""Importing early what the agents of a worker ask their models with, so that the first turn does not wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator

from polos.agents.agent import Agent
from polos.agents.model_calls import requests_of
from polos.journal.workers import Offer
from polos.models import call as models
from polos.models.request import ModelRequest
from polos.registry import get_workflow

logger = logging.getLogger("polos.worker")


def preload_in_background(offered: Iterable[Offer]) -> None:
    """Import in a thread of its own; nothing if no agent is offered."""
    if wanted := list(_requests(offered)):
        # No daemon: see `models.call`.
        threading.Thread(target=_preload, args=(wanted,), name="polos-preload", daemon=False).start()


def preload_now(offered: Iterable[Offer]) -> None:
    """Import before this returns, which may take seconds; nothing if no agent is offered."""
    if wanted := list(_requests(offered)):
        models.preload(wanted)


def _requests(offered: Iterable[Offer]) -> Iterator[ModelRequest]:
    for kind, name in offered:
        if kind == "agent" and isinstance(agent := get_workflow(name), Agent):
            yield from requests_of(agent)


def _preload(wanted: list[ModelRequest]) -> None:
    try:
        models.preload(wanted)
    except Exception:
        if threading.main_thread().is_alive():  # else the program ended, which broke the pretended calls
            logger.exception("What models are asked with cannot be imported; turns will fail")
