"""Reports of tests and the tables they leave behind, on their way from the processes of pytest-xdist."""

from __future__ import annotations

import sys
from typing import Any

import pytest

LAST_LINES = 20
REPORTS = pytest.StashKey[dict[str, list[str]]]()  # lines by their title, printed at the end of a session


def escaped(value: Any) -> Any:
    """Return a copy of what a report consists of that can be sent: plain values, text fit for UTF-8."""
    if value is None or type(value) in {bool, int, float, bytes}:
        return value
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(key): escaped(each) for key, each in value.items()}
    if isinstance(value, tuple):  # what a skip says is one
        return tuple(escaped(each) for each in value)
    if isinstance(value, list):
        return [escaped(each) for each in value]
    return escaped(repr(value))


class Culprit:
    """Says at the very end what ended the session: what follows from it is printed after it."""

    def __init__(self) -> None:
        self._said = ""

    def pytest_internalerror(self, excrepr: object) -> None:
        self._said = self._said or str(excrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._said:
            lines = escaped(self._said).splitlines()[-LAST_LINES:]
            sys.stderr.write("\n".join(["The session ended, first of all, because of", *lines, ""]))
