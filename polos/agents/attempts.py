"""What becomes of a turn whose model call failed: another attempt, another model, or its end.

The list of failed attempts on the turn's row is all that decides, so that any worker goes on where another
left off. An entry: ``{"try", "error", "at", "model", "kind"?, "given_up"?}``; the last ends a model's share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polos import serialization
from polos.agents.fallbacks import ModelPolicy
from polos.engine.outcomes import back_off, error_text
from polos.errors import ModelError, ModelErrorKind, PolosError
from polos.settings import Settings

_FILTERED = (ModelErrorKind.CONTENT_FILTER, ModelErrorKind.REFUSAL)
_OVERFLOW_ADVICE = (
    "The conversation is longer than the model takes: let the agent compact it "
    "(compaction=CompactionConfig(…)), send less, or use a model with a larger context"
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of the turn.

    Attributes:
        failures: The list for the row, as JSON text.
        error: For the row: this failure, or all there is to say about the end.
        delay: Seconds until the next attempt; None when there is none.
    """

    failures: str
    error: str
    delay: float | None


def failures_of(text: str | None) -> list[dict[str, Any]]:
    """Return the failed attempts that a turn's row lists."""
    return serialization.loads(text) if text else []


def model_number(failures: list[dict[str, Any]]) -> int:
    """Return which of an agent's models is asked next: 0 is its own."""
    return sum(1 for failure in failures if failure.get("given_up"))


def is_overflow(failures: str | None) -> bool:
    """Whether the last of the failed attempts a row lists was refused as too long for the model."""
    listed = failures_of(failures)
    return bool(listed) and listed[-1].get("kind") == ModelErrorKind.CONTEXT_OVERFLOW


def judge(
    error: Exception,
    *,
    asked: str,
    failures: list[dict[str, Any]],
    policy: ModelPolicy,
    settings: Settings,
    at: float,
) -> Verdict:
    """Return what becomes of a turn.

    Args:
        error: What the call raised.
        asked: Label of the model that was asked.
        failures: Of earlier attempts.
        policy: Of the agent.
        settings: Of this process.
        at: What time it is.
    """
    kind = getattr(error, "kind", None)
    number, tried = model_number(failures), _tried(failures) + 1
    failure: dict[str, Any] = {
        "try": len(failures) + 1,
        "error": error_text(error),
        "at": at,
        "model": asked,
    }
    if kind:
        failure["kind"] = str(kind)
    most = policy.max_attempts or settings.model_max_attempts
    if _is_retryable(error) and kind != ModelErrorKind.CONTEXT_OVERFLOW and tried < most:
        listed = serialization.dumps([*failures, failure])
        return Verdict(listed, failure["error"], _delay(settings, error, tried - 1))
    failure["given_up"] = True
    failures = [*failures, failure]
    if number < len(policy.fallback_models) and _another_may_answer(error, kind, policy):
        return Verdict(serialization.dumps(failures), failure["error"], 0.0)
    return Verdict(serialization.dumps(failures), _last_words(failures), None)


def _tried(failures: list[dict[str, Any]]) -> int:
    """Return how often the model was asked whose turn it is."""
    tried = 0
    for failure in failures:
        tried = 0 if failure.get("given_up") else tried + 1
    return tried


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, PolosError) and error.retryable


def _another_may_answer(error: Exception, kind: str | None, policy: ModelPolicy) -> bool:
    if kind in _FILTERED:
        return policy.fallback_on_content_filter
    return isinstance(error, ModelError) and kind != ModelErrorKind.CONTEXT_OVERFLOW


def _delay(settings: Settings, error: Exception, attempt: int) -> float:
    """Return the pause before the next attempt: what the provider asks for, else our own back-off."""
    pause = back_off(
        attempt, base_seconds=settings.model_retry_base_seconds, max_seconds=settings.model_retry_max_seconds
    )
    asked = error.retry_after_seconds if isinstance(error, ModelError) else None
    return pause if asked is None else max(pause, asked)


def _last_words(failures: list[dict[str, Any]]) -> str:
    """Return the error of a turn that has failed: each model and its last error."""
    shares: list[list[dict[str, Any]]] = [[]]
    for failure in failures:
        shares[-1].append(failure)
        if failure.get("given_up"):
            shares.append([])
    said = [_words_on(share) for share in shares if share]
    text = said[0] if len(said) == 1 else f"None of {len(said)} models answered: {'; '.join(said)}"
    return (
        f"{text}. {_OVERFLOW_ADVICE}" if failures[-1].get("kind") == ModelErrorKind.CONTEXT_OVERFLOW else text
    )


def _words_on(share: list[dict[str, Any]]) -> str:
    error: str = share[-1]["error"]
    return f"{error} (after {len(share)} attempts)" if len(share) > 1 else error
