"""A model that says what a test wrote, and remembers what it was asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from polos.clock import SYSTEM_CLOCK, Clock
from polos.errors import ModelError, ModelErrorKind
from polos.models.request import Chunk, ModelAnswer, ModelRequest
from polos.testing.answers import Answer, ScriptedAnswer, to_answer
from polos.types import Usage


class ScriptedModel:
    """Answers the model calls of a runtime in memory, in order, whichever agents make them.

    A call that fails and is tried again takes the next answer. When there is none left, the call fails for
    good.

    Args:
        script: The answers, each a text, `tool_call`, a list of those, a dict or model for structured output,
            `answer`, `error`, another exception, or a function of the request that returns one of these; or
            one such function, plain or async, for all calls.

    Attributes:
        calls: All requests so far, the first first; a request that is tried again counts again.
        clock: What pauses are measured by; a runtime sets its own.

    Raises:
        TypeError: The script holds what is no answer.
    """

    def __init__(
        self, script: Sequence[Answer | Callable[[ModelRequest], Any]] | Callable[[ModelRequest], Any]
    ) -> None:
        self.calls: list[ModelRequest] = []
        self.clock: Clock = SYSTEM_CLOCK
        self._function = script if callable(script) else None
        self._left = [] if callable(script) else [_checked(item) for item in script]

    @property
    def last_call(self) -> ModelRequest:
        """The request of the newest call.

        Raises:
            AssertionError: There was none.
        """
        if not self.calls:
            raise AssertionError("The model was not called")
        return self.calls[-1]

    @property
    def remaining(self) -> int:
        """How many answers of the script have not been given."""
        return len(self._left)

    def add(self, *answers: Answer | Callable[[ModelRequest], Any]) -> None:
        """Append answers to the script."""
        self._left += [_checked(item) for item in answers]

    async def ready(self, request: ModelRequest) -> None:
        """Return at once: nothing has to be loaded."""

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return 0: a script is free, but for answers whose `usage` says what they cost."""
        return 0.0

    async def generate(
        self,
        request: ModelRequest,
        *,
        before_send: Callable[[], Awaitable[None]] | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> ModelAnswer:
        """Give the next answer; see `polos.models.call.generate`.

        Raises:
            ModelError: The script says so, has ended, or pauses for longer than the request waits.
        """
        if before_send is not None:
            await before_send()
        self.calls.append(request)
        number = len(self.calls)
        given = to_answer(await self._next(request))
        if isinstance(given, Exception):
            raise given
        if isinstance(given, ModelAnswer):
            given = _as_scripted(given)
        made = given.to_model_answer(request, number)
        await self._say(given, made, request, on_chunk)
        return made

    async def _next(self, request: ModelRequest) -> Any:
        item: Any = self._function
        if item is None:
            if not self._left:
                raise _ended(len(self.calls))
            item = self._left.pop(0)
        if callable(item):
            item = item(request)
        return await item if inspect.isawaitable(item) else item

    async def _say(
        self,
        given: ScriptedAnswer,
        made: ModelAnswer,
        request: ModelRequest,
        on_chunk: Callable[[Chunk], None] | None,
    ) -> None:
        if on_chunk is None:
            await self._pause(given.pause_seconds, request.timeout_seconds)
            return
        left = request.timeout_seconds
        pieces: list[Chunk] = [*given.pieces(), *made.tool_calls]
        for piece in pieces:
            await self._pause(given.pause_seconds, min(left, request.chunk_timeout_seconds))
            left -= given.pause_seconds
            on_chunk(piece)

    async def _pause(self, seconds: float, limit: float) -> None:
        if seconds > 0:
            await self.clock.sleep(min(seconds, limit))
        if seconds > limit:
            raise ModelError(
                f"The scripted model said nothing for {limit:g} seconds",
                kind=ModelErrorKind.TIMEOUT,
                retryable=True,
            )


def _checked(item: Any) -> Any:
    return item if callable(item) and not isinstance(item, type) else to_answer(item)


def _as_scripted(given: ModelAnswer) -> ScriptedAnswer:
    return ScriptedAnswer(
        text=given.content,
        calls=tuple(given.tool_calls),
        usage=given.usage if given.usage.total_tokens else None,
        stop_reason=given.stop_reason,
        raw_output=tuple(given.raw_output),
    )


def _ended(number: int) -> ModelError:
    return ModelError(
        f"The script of the model has no answer for call {number}: add one, or see in model.calls which call "
        "should not have been made"
    )
