"""The chat page in a real Chromium, as a person uses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARTEFACTS = Path(__file__).with_name("artefacts")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
EXPECT_MILLISECONDS = 30_000  # a worker may have to start first


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser of this machine; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'polos[test]'"
    )
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium in the PATH: apt-get install chromium")
    playwright.expect.set_options(timeout=EXPECT_MILLISECONDS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class ChatPage:
    """One visitor's page, and what went wrong in it."""

    def __init__(self, context: Any, url: str) -> None:
        from playwright.sync_api import expect

        self._expect = expect
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._take_note)
        self.page.goto(url)

    def _take_note(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def ask(self, question: str) -> None:
        """Ask by keyboard alone."""
        self.page.get_by_label("Your message").press_sequentially(question)
        self.page.keyboard.press("Enter")

    def sees_text(self, text: str) -> None:
        """Return once the last answer says exactly this."""
        self._expect(self.exchange.locator(".answer")).to_have_text(text, use_inner_text=True)

    def sees_status(self, words: str) -> None:
        self._expect(self.exchange.locator(".status")).to_have_text(words)

    def is_done(self) -> None:
        """Return once the last answer has ended."""
        self._expect(self.exchange).to_have_attribute("aria-busy", "false")
        self._expect(self.page.get_by_role("button", name="Stop")).to_be_hidden()
        self._expect(self.page.get_by_role("button", name="Send")).to_be_enabled()

    @property
    def exchange(self) -> Any:
        """The last question and its answer."""
        return self.page.locator(".exchange").last

    @property
    def questions(self) -> list[str]:
        found: list[str] = self.page.locator(".question").all_inner_texts()
        return found

    def below_view(self) -> float:
        """Return how many pixels of the conversation lie below what is in view."""
        pixels: float = self.page.evaluate("log.scrollHeight - log.scrollTop - log.clientHeight")
        return pixels

    def keep(self, name: str) -> None:
        """Keep a screenshot."""
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")
