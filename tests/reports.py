"""Reports of tests and the tables they leave behind, on their way from the processes of pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest

REPORTS = pytest.StashKey[dict[str, list[str]]]()  # lines by their title, printed at the end of a session


def escaped(value: Any) -> Any:
    """Return a copy of what a report consists of, with all its text fit for UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(key): escaped(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(escaped(each) for each in value)
    return value
