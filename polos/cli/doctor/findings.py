"""What a check finds out, and a time limit for checks: what does not answer must not hang the doctor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

CHECK_SECONDS = 3.0


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # works; good to know
    WRONG = "wrong"  # something will not work, or is not safe


@dataclass(frozen=True)
class Finding:
    """One line. `advice` says what to do, where there is something to do."""

    level: Level
    subject: str
    text: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def ok(subject: str, text: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, advice: str = "") -> Finding:
    """Return a finding that is good to know."""
    return Finding(Level.NOTE, subject, text, advice)


def wrong(subject: str, text: str, advice: str = "") -> Finding:
    """Return a finding that somebody must do something about."""
    return Finding(Level.WRONG, subject, text, advice)


def bounded(subject: str, check: Check, *, seconds: float = CHECK_SECONDS) -> list[Finding]:
    """Return what `check` finds out within `seconds`; that it failed or did not end is a finding, too."""
    found: list[Finding] = []
    ended = threading.Event()
    # A daemon: what hangs in a driver is left behind when the command ends.
    threading.Thread(target=_run, args=(subject, check, found, ended), daemon=True).start()
    in_time = ended.wait(seconds)
    return [*found] if in_time else [*found, wrong(subject, f"no answer within {seconds:g} seconds")]


def _run(subject: str, check: Check, found: list[Finding], ended: threading.Event) -> None:
    try:
        for finding in check():
            found.append(finding)  # one by one: what was found before it hangs counts
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is what we want to know
        found.append(wrong(subject, _told(error)))
    finally:
        ended.set()


def _told(error: Exception) -> str:
    text = str(error).strip() or "no reason given"
    return text if type(error).__module__ == "polos.errors" else f"{type(error).__name__}: {text}"
