"""Reasoning that open models write into their text, before the answer and between tags."""

from __future__ import annotations

import re

_OPENINGS = ("<think>", "<thinking>", "<budget:thinking>")
_CLOSING = re.compile(r"</(?:think|thinking|budget:thinking)>")
_LONGEST_CLOSING = len("</budget:thinking>")


def without_thoughts(text: str) -> str:
    """Return `text` without the reasoning it begins with; all of it if that has no end."""
    thoughts = ThoughtFilter()
    return thoughts.visible(text) + thoughts.held


class ThoughtFilter:
    """Lets a text through as it comes, but for the reasoning it begins with.

    Attributes:
        held: What may be reasoning; text after all if nothing follows.
    """

    def __init__(self) -> None:
        self.held = ""
        self._is_open = True

    def visible(self, text: str) -> str:
        """Return what of the text so far can be shown now."""
        if not self._is_open:
            return text
        start = max(0, len(self.held) - _LONGEST_CLOSING)
        self.held += text
        if self.held.startswith(_OPENINGS):
            closing = _CLOSING.search(self.held, start)
            return self._release(closing.end()) if closing else ""
        return "" if any(opening.startswith(self.held) for opening in _OPENINGS) else self._release(0)

    def _release(self, start: int) -> str:
        held, self.held, self._is_open = self.held, "", False
        return held[start:]
