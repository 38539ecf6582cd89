"""In place of a fault: holds a worker's process where it passes a fault point, until a test lets it go on."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path

from moments import Moment

LOOK_AGAIN_SECONDS = 0.005
HELD_SECONDS = 60.0  # then the test has forgotten it


class Turnstile:
    """One for all processes, in a folder: whichever of them makes the `nth` pass of the moment is held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._armed = folder / "armed"
        self._numbers = count(1)
        self._number = 0

    # -- of the test

    def arm(self, moment: Moment) -> None:
        """Hold the next run that comes to this moment."""
        self._number = next(self._numbers)
        text = json.dumps([self._number, moment.point, moment.match, moment.nth])
        new = self._folder / "new"
        new.write_text(text)
        os.replace(new, self._armed)

    @property
    def is_reached(self) -> bool:
        return self._mark("reached", self._number).exists()

    def open(self) -> None:
        """Let it go on, and hold nobody else."""
        self._mark("open", self._number).touch()

    # -- of a worker

    def passed(self, point: str, label: str) -> None:
        """In place of the same method of a fault."""
        if not self._armed.exists():
            return
        number, where, match, nth = json.loads(self._armed.read_text())
        if point != where or match not in label or self._passes(number) != nth:
            return
        self._mark("reached", number).touch()
        deadline = time.monotonic() + HELD_SECONDS
        while not self._mark("open", number).exists():
            assert time.monotonic() < deadline, "nobody opened the turnstile"
            time.sleep(LOOK_AGAIN_SECONDS)

    def _passes(self, number: int) -> int:
        """Return how many passes there were, with this one, in all processes."""
        file = os.open(self._mark("passes", number), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_CUR)  # behind what was just appended
        finally:
            os.close(file)

    def _mark(self, name: str, number: int) -> Path:
        return self._folder / f"{name}-{number}"
