"""Every error of the package, in one tree.

PolosError
├── ConfigurationError (ValueError)           you: settings, definitions, imports
│   ├── SchemaVersionError                    the database is older or newer than this version
│   └── EncryptionError                       a key of stored values is unusable, missing or another one
├── ServiceUnavailableError                   infrastructure: a server does not answer; safe to retry
│   ├── JournalUnavailableError               the database
│   └── ServerUnavailableError                polos server
├── AccessDeniedError (PermissionError)       polos server does not accept the key, or not for this
├── ModelError                                a provider refused, failed or answered nonsense
│   └── MissingCredentialError (ValueError)   its key is not set
├── ToolServerError                           an MCP server does not answer, refuses or fails
├── ModelRequestForbiddenError                a test was about to ask a real model
├── StepExecutionError                        a step failed for good; fails the run unless caught
│   ├── ContextOverflowError                  the conversation is too long for the model, and stays so
│   └── UsageLimitExceededError               a run or session has used what it may
├── GuardrailError                            a model's answers did not pass the guardrails of its agent
├── OutputError                               a model's answer does not fit the agent's output schema
├── InputError (ValueError)                   the input of a run does not fit its definition
├── AnswerError (ValueError)                  an answer does not fit the form of its question
├── RunTimeoutError                           a run used up its own time
├── WorkflowTimeoutError                      the caller's deadline passed
├── RunFailedError (RuntimeError)             the run that was waited for failed or was cancelled
├── NonDeterminismError                       a replay asked for other steps than it recorded
├── SerializationError (TypeError)            a value cannot be stored as JSON
├── ValueTooLargeError (ValueError)           a value exceeds POLOS_MAX_VALUE_BYTES
└── IdempotencyError (ValueError)             the same key was used with another input

Signals, which ``except Exception`` in user code cannot swallow:

ExecutionCancelledError (BaseException)       the run was cancelled
WaitException (BaseException)                 the run's coroutine is put away (parked, drained, fenced)
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polos.types import Usage


class PolosError(Exception):
    """An error raised by polos."""

    retryable: bool = False


class ConfigurationError(PolosError, ValueError):
    """A setting or definition is wrong; the message says which and what to write instead."""


class SchemaVersionError(ConfigurationError):
    """The database schema is older or newer than this version of polos."""


class EncryptionError(ConfigurationError):
    """A key of POLOS_ENCRYPTION_KEYS is unusable, or a stored value needs one that is not here."""


class ServiceUnavailableError(PolosError):
    """A server this process needs does not answer. Safe to retry."""

    retryable = True


class JournalUnavailableError(ServiceUnavailableError):
    """The database does not answer. Nothing was accepted; safe to retry."""


class ServerUnavailableError(ServiceUnavailableError):
    """The server of the API does not answer, or cannot at the moment. Safe to retry with the same key."""


class AccessDeniedError(PolosError, PermissionError):
    """The server of the API does not accept the API key, or the key is not for this project."""


class ModelErrorKind(StrEnum):
    """Why a model call failed, the same for every provider."""

    AUTHENTICATION = "authentication"
    """The key is missing or wrong, or may not use this model."""
    QUOTA = "quota"
    """The account has no money left."""
    RATE_LIMIT = "rate_limit"
    """Too many requests or tokens for now."""
    UNAVAILABLE = "unavailable"
    """The provider is down, overloaded or not reachable, or broke off its answer."""
    TIMEOUT = "timeout"
    UNKNOWN_MODEL = "unknown_model"
    CONTEXT_OVERFLOW = "context_overflow"
    """The conversation is too long for the model: shorten it and ask again."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter stopped the request or the answer."""
    REFUSAL = "refusal"
    """The model itself declined to answer."""
    EMPTY = "empty"
    """The answer holds neither text nor tool calls."""
    BAD_REQUEST = "bad_request"
    """The provider does not take the request as it is: an option, a tool, a schema, a message."""
    BAD_ANSWER = "bad_answer"
    """The answer cannot be read."""


class ModelError(PolosError):
    """A model provider refused a request, failed, or answered something unusable.

    Attributes:
        provider: Provider key of the agent, such as ``openai``.
        model: Model name as the agent gave it.
        kind: Why it failed.
        status_code: HTTP status of the answer, or None when there was none.
        retryable: Whether the same request may succeed later.
        retry_after_seconds: How long the provider asked to wait, if it did.
        usage: What the failed call is billed for, where that may be: an answer that was empty, refused or
            broken off. As the provider counted; estimated from the texts where it did not say. None for
            a request that was turned down, which costs nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        kind: ModelErrorKind = ModelErrorKind.BAD_REQUEST,
        status_code: int | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.kind = kind
        self.status_code = status_code
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage


class MissingCredentialError(ModelError, ValueError):
    """The provider needs a key that is not set."""


class ToolServerError(PolosError):
    """A server of tools (MCP) cannot be started or reached, refuses, fails or does not answer in time.

    Attributes:
        retryable: Whether the same may succeed later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ModelRequestForbiddenError(PolosError):
    """A test was about to ask a model, and has forbidden that."""


class StepExecutionError(PolosError):
    """A step failed for good: its own retries are used up, or it can never succeed.

    Uncaught, it fails the run without another attempt.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ContextOverflowError(StepExecutionError):
    """The conversation is longer than the model takes, and cannot be made shorter."""


class UsageLimitExceededError(StepExecutionError):
    """A limit of ``usage_limits`` is used up: the run, or its session, may make no further model call."""

    kind = "usage_limit"  # in the list of a turn's failures


class GuardrailError(PolosError):
    """A model's answer did not pass a guardrail, also after it was told why and asked again."""


class OutputError(PolosError):
    """A model's answer does not fit the agent's ``output_schema``, also after it was told why."""


class InputError(PolosError, ValueError):
    """The input of a run does not fit its definition. Another attempt cannot help."""


class AnswerError(PolosError, ValueError):
    """An answer does not fit the form of its question, which still waits; the message names the field."""


class RunTimeoutError(PolosError):
    """A run used up the time it was given (``run_timeout_seconds``)."""


class WorkflowTimeoutError(PolosError):
    """A run did not end before the deadline of the caller that waits for it."""

    def __init__(self, execution_id: str, timeout_seconds: float) -> None:
        super().__init__(f"Run {execution_id} did not end within {timeout_seconds:g} seconds")
        self.execution_id = execution_id
        self.timeout_seconds = timeout_seconds


class RunFailedError(PolosError, RuntimeError):
    """The run that was waited for ended ``failed`` or ``cancelled``."""


class NonDeterminismError(PolosError):
    """A replay asked for other steps than its journal holds; the run is blocked until a person decides."""


class SerializationError(PolosError, TypeError):
    """A value cannot be stored as JSON."""


class ValueTooLargeError(PolosError, ValueError):
    """A value is larger than POLOS_MAX_VALUE_BYTES."""


class IdempotencyError(PolosError, ValueError):
    """An idempotency key was used again with another input."""


class ExecutionCancelledError(BaseException):
    """The run was cancelled while this code ran."""


class WaitException(BaseException):
    """The run's coroutine is being put away; it is replayed later. Never catch it."""

    def __init__(self, reason: str = "", wait_data: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_data = wait_data
