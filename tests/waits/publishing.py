"""Publishing to topics as a client does, on a test's own connection."""

from __future__ import annotations

import json
from typing import Any

from engine.fleet import Fleet

from polos.journal.event_waits import READ_MET
from polos.journal.events import NewEvent, publish, publish_in_tree


def publish_to(fleet: Fleet, topic: str, *events: Any, kind: str | None = None, root: str = "") -> int:
    """Publish events, told by their data; return the number of the last. Nobody is told: sweepers find it."""
    new = [NewEvent(kind, json.dumps({"says": data})) for data in events]
    unit = publish_in_tree("default", topic, root, new) if root else publish("default", topic, new)
    return int(fleet.do(unit)[0][0])


def met_waits(fleet: Fleet) -> int:
    """Return how many waits have met an event that was not handed over."""
    return len(fleet.read(READ_MET))
