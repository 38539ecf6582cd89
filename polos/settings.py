"""Settings, read once from POLOS_* environment variables; every limit of the package is named here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from polos.errors import ConfigurationError
from polos.model_limits import ModelLimit, parse_limits
from polos.model_path import AUTO, model_path
from polos.price_list import price_list_path

T = TypeVar("T")
_URLS = re.compile(r";(?=[\w+.-]+://)")
# To the last @: an unescaped password may hold some. What has no scheme is no URL, but shown in an error.
_PASSWORD = re.compile(r"^([\w+.-]+://[^:/@]*:|[^:/@\s]*:(?!//)).*@")
_PASSWORD_OPTION = re.compile(r"([?&]\w*password=)[^&]*")
DEFAULT_DEPLOYMENT = "default"
_DEPLOYMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+/-]{0,99}")


def _setting(
    variable: str, parse: Callable[[str], T], default: T, *, other_name: str = "", is_secret: bool = False
) -> T:
    """Declare a field filled from `variable`; the default is used when it is unset or empty.

    `other_name`: a variable that is read where that one is not set. `is_secret`: it holds a password or key,
    so that the settings are shown without it.
    """
    names = {"variable": variable, "other_name": other_name}
    return field(default=default, repr=not is_secret, metadata={**names, "parse": parse})


def _positive_int(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError("must be 1 or more")
    return number


def _seconds(text: str) -> float:
    if not (number := float(text)) >= 0:
        raise ValueError("must be 0 or more")
    return number


def _pause(text: str) -> float:
    if not (number := float(text)) > 0:
        raise ValueError("must be more than 0")
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise ValueError("must be 0 or more")
    return number


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return value


def _days(text: str) -> float | None:
    return _seconds(text)


def _deployment(text: str) -> str:
    if not _DEPLOYMENT.fullmatch(text):
        raise ValueError("must be up to 100 letters, digits and any of _ . : + / -, it names Celery queues")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class Settings:
    """One process's settings. Build with `Settings.from_environment()`."""

    home: Path = _setting("POLOS_HOME", Path, Path(".polos"))
    database_url: str = _setting("POLOS_DATABASE_URL", str, "", is_secret=True)
    database_direct_url: str = _setting("POLOS_DATABASE_DIRECT_URL", str, "", is_secret=True)  # no pooler
    broker_url: str = _setting("POLOS_BROKER_URL", str, "", is_secret=True)
    redis_url: str = _setting("POLOS_REDIS_URL", str, "", is_secret=True)
    redis_prefix: str = _setting("POLOS_REDIS_PREFIX", str, "polos:")
    project_id: str = _setting("POLOS_PROJECT_ID", str, "default")
    deployment_id: str = _setting("POLOS_DEPLOYMENT_ID", _deployment, DEFAULT_DEPLOYMENT)
    imports: tuple[str, ...] = _setting("POLOS_IMPORTS", _names, ())
    embedded_worker: str = _setting("POLOS_EMBEDDED_WORKER", _one_of("auto", "0", "1"), "auto")
    embedded_concurrency: int = _setting("POLOS_MAX_CONCURRENT_WORKFLOWS", _positive_int, 100)
    sqlite_sync: str = _setting("POLOS_SQLITE_SYNC", _one_of("normal", "full"), "normal")
    max_value_bytes: int = _setting("POLOS_MAX_VALUE_BYTES", _positive_int, 1 << 20)
    max_agent_steps: int = _setting("POLOS_AGENT_MAX_STEPS", _positive_int, 10)
    max_run_retries: int = _setting("POLOS_MAX_RETRIES", int, 2)
    max_trigger_hops: int = _setting("POLOS_MAX_TRIGGER_HOPS", _positive_int, 32)  # behind one event
    max_depth: int = _setting("POLOS_MAX_DEPTH", _positive_int, 100)  # runs below one root
    max_crashes: int = _setting("POLOS_MAX_CRASHES", _positive_int, 3)
    suspect_patience_seconds: float = _setting("POLOS_SUSPECT_PATIENCE_SECONDS", _pause, 60.0)
    model_timeout_seconds: float = _setting("POLOS_MODEL_TIMEOUT_SECONDS", _seconds, 600.0)
    model_chunk_timeout_seconds: float = _setting("POLOS_MODEL_CHUNK_TIMEOUT_SECONDS", _seconds, 120.0)
    model_max_attempts: int = _setting("POLOS_MODEL_MAX_ATTEMPTS", _positive_int, 5)
    model_retry_base_seconds: float = _setting("POLOS_MODEL_RETRY_BASE_SECONDS", _seconds, 1.0)
    model_limits: tuple[ModelLimit, ...] = _setting("POLOS_MODEL_LIMITS", parse_limits, ())
    model_max_wait_seconds: float = _setting("POLOS_MODEL_MAX_WAIT_SECONDS", _pause, 3600.0)  # for a limit
    model_pauses: str = _setting("POLOS_MODEL_PAUSES", _one_of("shared", "alone"), "shared")  # after a 429
    model_retry_max_seconds: float = _setting("POLOS_MODEL_RETRY_MAX_SECONDS", _seconds, 60.0)
    model_prices: Path | None = _setting("POLOS_MODEL_PRICES", price_list_path, None)  # JSON, the user's
    mcp_connect_seconds: float = _setting("POLOS_MCP_CONNECT_SECONDS", _pause, 60.0)
    mcp_timeout_seconds: float = _setting("POLOS_MCP_TIMEOUT_SECONDS", _pause, 60.0)
    mcp_list_seconds: float = _setting("POLOS_MCP_LIST_SECONDS", _seconds, 60.0)
    mcp_idle_seconds: float = _setting("POLOS_MCP_IDLE_SECONDS", _seconds, 300.0)
    mcp_restart_max_seconds: float = _setting("POLOS_MCP_RESTART_MAX_SECONDS", _seconds, 60.0)
    silence_limit_seconds: float = _setting("POLOS_SILENCE_LIMIT_SECONDS", _seconds, 10.0)
    blocked_loop_seconds: float = _setting("POLOS_BLOCKED_LOOP_SECONDS", _seconds, 5.0)  # 0: no warning
    beat_seconds: float = _setting("POLOS_BEAT_SECONDS", _seconds, 1.0)
    sweep_seconds: float = _setting("POLOS_SWEEP_SECONDS", _seconds, 1.0)
    ring_again_seconds: float = _setting("POLOS_RING_AGAIN_SECONDS", _seconds, 5.0)
    ring_again_max_seconds: float = _setting("POLOS_RING_AGAIN_MAX_SECONDS", _seconds, 60.0)
    doorbells_per_route: int = _setting("POLOS_DOORBELLS_PER_ROUTE", _positive_int, 100)  # of new runs
    local_delivery: float = _setting("POLOS_LOCAL_DELIVERY", _share, 0.5)  # of the slots; 0: none
    default_concurrency_limit: int = _setting("POLOS_DEFAULT_CONCURRENCY_LIMIT", _count, 0)  # 0: none
    drain_seconds: float = _setting("POLOS_DRAIN_SECONDS", _seconds, 25.0)
    resident_max: int = _setting("POLOS_RESIDENT_MAX", _positive_int, 5000)
    resident_seconds: float = _setting("POLOS_RESIDENT_SECONDS", _seconds, 600.0)
    wait_threshold_seconds: float = _setting("POLOS_WAIT_THRESHOLD_SECONDS", _seconds, 10.0)
    public_url: str = _setting("POLOS_PUBLIC_URL", str, "http://localhost:8080")  # in links for people
    approval_secret: str = _setting(
        "POLOS_APPROVAL_SECRET", str, "", is_secret=True
    )  # signs links; none are made without
    approval_link_seconds: float = _setting("POLOS_APPROVAL_LINK_SECONDS", _seconds, 7 * 86400.0)
    standing_approval_days: float = _setting("POLOS_STANDING_APPROVAL_DAYS", _seconds, 30.0)  # 0: for ever
    search_timeout_seconds: float = _setting("POLOS_SEARCH_TIMEOUT_SECONDS", _pause, 30.0)  # of a web search
    stream_keep_seconds: float = _setting(
        "POLOS_STREAM_KEEP_SECONDS", _seconds, 3600.0
    )  # after its last entry
    stream_max_entries: int = _setting("POLOS_STREAM_MAX_ENTRIES", _positive_int, 10_000)  # of a run tree
    result_poll_seconds: float = _setting("POLOS_RESULT_POLL_SECONDS", _seconds, 2.0)
    model_path: str = _setting("POLOS_MODEL_PATH", model_path, AUTO)  # which way model calls go out
    preload_models: str = _setting(
        "POLOS_PRELOAD_MODELS", _one_of("0", "1"), "1"
    )  # what models are asked with, at the start
    sync_threads: int = _setting("POLOS_SYNC_THREADS", _positive_int, 64)
    log_format: str = _setting("POLOS_LOG_FORMAT", _one_of("text", "json"), "text")
    retention_days: float = _setting(
        "POLOS_RETENTION_DAYS", _seconds, 7.0, other_name="EXECUTION_RETENTION_DAYS"
    )  # after the end of a tree of runs; 0: for ever
    retention_days_completed: float | None = _setting("POLOS_RETENTION_DAYS_COMPLETED", _days, None)
    retention_days_failed: float | None = _setting("POLOS_RETENTION_DAYS_FAILED", _days, None)
    retention_days_cancelled: float | None = _setting("POLOS_RETENTION_DAYS_CANCELLED", _days, None)
    session_retention_days: float = _setting(
        "POLOS_SESSION_RETENTION_DAYS", _seconds, 30.0
    )  # after the last use of a session; 0: for ever
    session_max_blob_bytes: int = _setting(
        "POLOS_SESSION_MAX_BLOB_BYTES", _count, 64 << 10
    )  # of one image or file that a session remembers
    encryption_keys: str = _setting(
        "POLOS_ENCRYPTION_KEYS", str, "", is_secret=True
    )  # of stored values; the first seals
    local_mode: str = _setting("POLOS_LOCAL_MODE", _one_of("true", "false"), "false")  # no keys
    cors_origins: tuple[str, ...] = _setting("POLOS_CORS_ORIGINS", _names, ())
    max_request_bytes: int = _setting("POLOS_MAX_REQUEST_BYTES", _positive_int, 10 << 20)
    requests_per_minute: int = _setting("POLOS_REQUESTS_PER_MINUTE", _count, 0)  # of each key; 0: no limit
    stream_keepalive_seconds: float = _setting("POLOS_STREAM_KEEPALIVE_SECONDS", _pause, 15.0)
    stream_stall_seconds: float = _setting("POLOS_STREAM_STALL_SECONDS", _pause, 60.0)
    ready_patience_seconds: float = _setting("POLOS_READY_PATIENCE_SECONDS", _seconds, 60.0)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings of this process.

        Raises:
            ConfigurationError: A variable holds something unusable; the message names it.
        """
        environment = os.environ if environment is None else environment
        values = {}
        for name, spec in cls.__dataclass_fields__.items():
            for variable in (spec.metadata["variable"], spec.metadata["other_name"]):
                if text := environment.get(variable, "").strip():
                    values[name] = _parsed(variable, text, spec.metadata["parse"])
                    break
        return cls(**values)

    def with_values(self, **values: Any) -> Settings:
        """Return the settings with those of `values` that are not None."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    @property
    def embeds_services(self) -> bool:
        """Whether anything has to be run by ourselves because no URL is configured for it."""
        return not (self.database_url and self.broker_url)


def _parsed(variable: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{variable}={text!r} cannot be used: {error}") from error


def hide_password(url: str) -> str:
    """Return `url` with its passwords replaced by ``***``, for messages and logs; any text will do.

    Of several URLs separated by ``;``, the passwords of all are hidden.
    """
    parts = [_PASSWORD.sub(r"\1***@", part) for part in _URLS.split(url)]
    return ";".join(_PASSWORD_OPTION.sub(r"\1***", part) for part in parts)
