"""From what code returned or raised to what the journal stores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polos import serialization
from polos.errors import PolosError
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome
from polos.redacting import redacted
from polos.settings import Settings

MAX_ERROR_CHARACTERS = 16_384
JITTER = 0.2  # of every back-off: spreads retries that failed together


def error_text(error: BaseException | str) -> str:
    """Return a message the journal can hold, whatever the error's text contains; passwords are left out."""
    text = redacted(error if isinstance(error, str) else _text_of(error))
    clean = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= MAX_ERROR_CHARACTERS else clean[:MAX_ERROR_CHARACTERS] + "… (cut)"


def _text_of(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, BaseExceptionGroup):  # of a task group: its own text names no cause
        return f"{text}: {'; '.join(_text_of(member) for member in error.exceptions)}"
    return text


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turn an exit of the interpreter that user code raises into an error: in a task, it ends the loop."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"The code raised {error!r}, which ends no worker") from error


def completed(value: Any, settings: Settings, *, what: str, failures: str | None = None) -> Outcome:
    """Return the outcome of a step that returned `value`.

    Raises:
        SerializationError, ValueTooLargeError: It cannot be stored; running the step again cannot help.
    """
    return Outcome(
        StepStatus.COMPLETED,
        output=serialization.dumps(value, limit_bytes=settings.max_value_bytes, what=what),
        output_schema=serialization.schema_name(value),
        failures=failures,
    )


def failed(message: str, *, failures: str | None = None) -> Outcome:
    """Return the outcome of a step that failed for good."""
    return Outcome(StepStatus.FAILED, error=error_text(message), failures=failures)


def can_never_succeed(error: BaseException) -> bool:
    """Whether another attempt, with the same recorded inputs, must fail in the same way."""
    if isinstance(error, BaseExceptionGroup):
        return any(can_never_succeed(member) for member in error.exceptions)
    return isinstance(error, PolosError) and not error.retryable


def back_off(attempt: int, *, base_seconds: float, max_seconds: float) -> float:
    """Return the pause before retry number `attempt` (from 0): exponential, bounded, with jitter."""
    pause: float = min(base_seconds * 2 ** min(attempt, 32), max_seconds)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)
