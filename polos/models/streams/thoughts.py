"""Reasoning that a model writes into its text, between tags."""

from __future__ import annotations

import re

_OPENINGS = ("<think>", "<thinking>", "<budget:thinking>")
_CLOSING = re.compile(r"</(?:think|thinking|budget:thinking)>")
_LONGEST_CLOSING = len("</budget:thinking>")


class ThoughtFilter:
    """Holds back what LiteLLM cuts off the text of the whole answer: reasoning it begins with.

    What is held back to the end is text after all, and is in the whole answer.
    """

    def __init__(self) -> None:
        self._is_open = True
        self._held = ""

    def switch_off(self) -> str:
        """Hold back nothing more, and return what was held: the reasoning has a field of its own."""
        return self._release(0)

    def visible(self, text: str) -> str:
        """Return what of the text so far can be shown now."""
        if not self._is_open:
            return text
        start = max(0, len(self._held) - _LONGEST_CLOSING)
        self._held += text
        if self._held.startswith(_OPENINGS):
            closing = _CLOSING.search(self._held, start)
            return self._release(closing.end()) if closing else ""
        return "" if any(opening.startswith(self._held) for opening in _OPENINGS) else self._release(0)

    def _release(self, start: int) -> str:
        held, self._held, self._is_open = self._held, "", False
        return held[start:]
