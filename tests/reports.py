"""Tables that tests leave behind, printed at the end of a session whichever process made them."""

from __future__ import annotations

import pytest

REPORTS = pytest.StashKey[dict[str, list[str]]]()  # lines by their title
