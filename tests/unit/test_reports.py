"""What pytest-xdist sends is made fit for it."""

from __future__ import annotations

from reports import escaped


def test_text_that_utf8_cannot_hold_does_not_end_the_process_that_reports_it() -> None:
    report = {"longrepr": ("a\ud800", [1, None]), "sections": [["log", "\udfff"]]}
    assert escaped(report) == {"longrepr": ("a\\ud800", [1, None]), "sections": [["log", "\\udfff"]]}
