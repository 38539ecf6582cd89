"""Named points where tests make the process die, stop or fail; POLOS_FAULT selects one, else nothing happens.

``POLOS_FAULT=point:action[:nth][:match]``: at the nth pass (default 1) of ``point`` do ``action``: ``kill9``,
``stop`` (SIGSTOP) or ``raise``. With ``match``, only passes whose label contains it count.
``POLOS_FAULT_FILE`` names a file that is created when the fault strikes; while it exists the fault does not
strike again, so that a program restarted with the same environment runs clean.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

POINTS = (
    "before_claim",
    "after_claim",
    "before_execute",
    "after_execute",
    "before_commit",
    "after_commit_before_answer",
    "after_record",
    "before_child_start",
    "after_child_start",
    "before_ring",
    "before_finish",
    "after_finish",
    "in_upgrade",
)
ACTIONS = ("kill9", "stop", "raise")


class InjectedFaultError(Exception):
    """Raised at a fault point by the action ``raise``."""


class _Fault:
    def __init__(self, text: str, marker: str) -> None:
        point, _, rest = text.partition(":")
        action, _, rest = rest.partition(":")
        nth, _, self.match = rest.partition(":")
        if point not in POINTS or action not in ACTIONS:
            raise ValueError(f"POLOS_FAULT={text!r}: want one of {POINTS} and one of {ACTIONS}")
        self.point, self.action, self.left = point, action, int(nth or 1)
        self.marker = Path(marker) if marker else None

    def passed(self, point: str, label: str) -> None:
        if point != self.point or self.match not in label or (self.marker and self.marker.exists()):
            return
        self.left -= 1
        if self.left == 0:
            self.strike()

    def strike(self) -> None:
        if self.marker:
            self.marker.write_text(str(os.getpid()))
        if self.action == "raise":
            raise InjectedFaultError(self.point)
        if self.action == "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        else:  # sent to the process, it would stop another thread first, and this one would go on for a while
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


_text = os.environ.get("POLOS_FAULT", "")
_fault = _Fault(_text, os.environ.get("POLOS_FAULT_FILE", "")) if _text else None


def faultpoint(point: str, label: str = "") -> None:
    """Pass the point named `point`; `label` says what passes it, such as ``turn weather-agent``."""
    if _fault is not None:
        _fault.passed(point, label)
