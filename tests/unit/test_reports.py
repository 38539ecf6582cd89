"""What pytest-xdist sends is made fit for it."""

from __future__ import annotations

from reports import escaped


def test_what_cannot_be_sent_does_not_end_the_process_that_reports_it() -> None:
    report = {"longrepr": ("a\ud800", [1, None]), "sections": [["log", "\udfff"]], "other": {1}}
    expected = {"longrepr": ("a\\ud800", [1, None]), "sections": [["log", "\\udfff"]], "other": "{1}"}
    assert escaped(report) == expected
