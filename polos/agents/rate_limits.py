"""Limits of model calls: each turn asks before its model is asked, in Redis, and in the journal without it.

Both may be counting at the same time: while a Redis comes and goes, some workers see it and others do not. So
whoever finds that Redis has forgotten an allowance, or was away, has all workers ask the journal as well for
some seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from polos.allowances import FREE, Answer, Permit, Question, Verdict
from polos.clock import Clock
from polos.engine.tasks import start_apart
from polos.errors import ModelError, ModelErrorKind
from polos.journal.allowances import JournalAllowances
from polos.model_limits import ModelLimit, limit_for
from polos.models.providers import api_key_of
from polos.models.request import ModelRequest
from polos.settings import Settings
from polos.streaming.allowances import AllowancesAwayError, SharedAllowances

logger = logging.getLogger("polos.agents")

PAUSES_CHANNEL = "model-pauses"
AWAY_SECONDS = 2.0  # for which a Redis that did not answer is not asked
RESTART_SECONDS = 60.0  # after a pause, in which calls of a model without a limit begin one by one
RESTART_COST = 0.05  # seconds from one of them to the next
ASSUMED_OUTPUT_TOKENS = 1000  # of a call that does not bound its answer
CHARACTERS_PER_TOKEN = 4
IMAGE_CHARACTERS = 4000  # for which the data of an image count


class RateLimits:
    """The limits of one worker's project. Used on one event loop.

    Args:
        shared: The allowances in Redis.
        stored: Those in the journal.
        settings: Of this process.
        clock: Of this process.
        tell: Carries a notice to other workers, whose `told` takes it in; it may get lost.
    """

    def __init__(
        self,
        shared: SharedAllowances,
        stored: JournalAllowances,
        settings: Settings,
        clock: Clock,
        *,
        tell: Callable[[str], None],
    ) -> None:
        self._tell = tell
        self._shared = shared
        self._stored = stored
        self._settings = settings
        self._clock = clock
        self._held_until: dict[str, float] = {}  # by the monotonic clock: what this process knows of gates
        self._paused_until: dict[str, float] = {}
        self._away_until = -math.inf
        self._was_away = False

    async def ask(self, request: ModelRequest, ticket: float | None) -> Permit:
        """Return whether the call may begin; `ticket` is what an earlier answer gave the same turn."""
        limit = limit_for(self._settings.model_limits, model_label(request))
        if limit is None and not self._paused_until:
            return FREE
        name = allowance_name(self._settings.project_id, request)
        if limit is None and not self._restarts(name):
            return FREE
        cost = RESTART_COST if limit is None else limit.cost(_estimated_tokens(request, limit))
        question = Question(
            cost=cost,
            burst=0.0 if limit is None else limit.burst_seconds,
            ticket=ticket,
            longest=self._settings.model_max_wait_seconds,
            held=max(self._held_until.get(name, 0.0) - self._clock.monotonic(), 0.0),
        )
        answer, in_journal = await self._counted(name, question, is_limited=limit is not None)
        if answer.held > 0:
            self._held_until[name] = self._clock.monotonic() + answer.held
        return Permit(answer, name, limit, cost, in_journal)

    def settle(self, permit: Permit, tokens: int | None) -> None:
        """Count what a call really took; None where nothing is known. Nobody waits for it."""
        if permit.limit is None or permit.limit.tokens_per_second is None or tokens is None:
            return
        difference = permit.limit.cost(tokens) - permit.cost
        if difference:
            start_apart(self._correct(permit, difference), name="correct an allowance")

    async def pause(self, request: ModelRequest, seconds: float) -> None:
        """Let no worker ask this model with this key for so long."""
        if self._settings.model_pauses == "alone" or seconds <= 0:
            return
        seconds = min(seconds, self._settings.model_max_wait_seconds)
        name = allowance_name(self._settings.project_id, request)
        logger.warning("%s wants no calls for %.1f s; no worker makes any", model_label(request), seconds)
        self._remember_pause(name, seconds)
        try:
            await self._shared.pause(name, seconds)
        except AllowancesAwayError:
            self._is_away()
            if limit_for(self._settings.model_limits, model_label(request)) is not None:
                await self._stored.pause(name, seconds)
        self._tell(json.dumps({"name": name, "seconds": seconds}))

    def told(self, notice: str) -> None:
        """Take in the notice of another worker's `pause`."""
        given = json.loads(notice)
        self._remember_pause(str(given["name"]), float(given["seconds"]))

    async def close(self) -> None:
        """Close the connections of the running loop."""
        await self._shared.close()

    def _remember_pause(self, name: str, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        self._paused_until[name] = max(until, self._paused_until.get(name, 0.0))

    def _restarts(self, name: str) -> bool:
        """Whether a model wants a pause, or did lately: without a limit, nobody counts at other times."""
        until = self._paused_until.get(name)
        if until is not None and self._clock.monotonic() > until + RESTART_SECONDS:
            del self._paused_until[name]
            return False
        return until is not None

    async def _counted(self, name: str, question: Question, *, is_limited: bool) -> tuple[Answer, bool]:
        """Return the answer, and whether the journal has counted the call."""
        if self._clock.monotonic() < self._away_until:
            return await self._without_redis(name, question, is_limited=is_limited)
        try:
            counted = await self._shared.ask(name, question, was_away=self._was_away)
        except AllowancesAwayError:
            self._is_away()
            return await self._without_redis(name, question, is_limited=is_limited)
        self._was_away = False
        if not is_limited or not counted.is_doubted or counted.answer.verdict is not Verdict.GO:
            return counted.answer, False
        # The journal lets it begin no earlier than Redis does, and counts it then: all pass this one gate.
        earliest = max(question.held, counted.answer.seconds)
        return await self._stored.ask(name, replace(question, earliest=earliest)), True

    async def _without_redis(self, name: str, question: Question, *, is_limited: bool) -> tuple[Answer, bool]:
        if is_limited:
            return await self._stored.ask(name, replace(question, earliest=question.held)), True
        left = self._paused_until.get(name, 0.0) - self._clock.monotonic()
        if left <= 0:
            return FREE.answer, False
        return Answer(Verdict.WAIT, left, question.ticket), False

    def _is_away(self) -> None:
        self._away_until = self._clock.monotonic() + AWAY_SECONDS
        self._was_away = True

    async def _correct(self, permit: Permit, seconds: float) -> None:
        if permit.in_journal:
            await self._stored.correct(permit.name, seconds)
        try:
            await self._shared.correct(permit.name, seconds)
        except AllowancesAwayError:
            self._is_away()


def refusal(permit: Permit, request: ModelRequest, settings: Settings) -> ModelError:
    """Return the error of a call that would have to wait too long."""
    label = model_label(request)
    return ModelError(
        f"{label}: its limit leaves no room for another {permit.answer.seconds:.0f} seconds, more than "
        f"POLOS_MODEL_MAX_WAIT_SECONDS ({settings.model_max_wait_seconds:g}). Raise POLOS_MODEL_LIMITS, "
        "start fewer runs at once, or give the agent fallback_models",
        provider=request.provider,
        model=request.model,
        kind=ModelErrorKind.RATE_LIMIT,
    )


def model_label(request: ModelRequest) -> str:
    """Return the provider and model of a request as limits name them."""
    return f"{request.provider.strip().lower()}/{request.model}"


def allowance_name(project: str, request: ModelRequest) -> str:
    """Return the name of the allowance that a request draws on; of its key, it tells nothing."""
    key = api_key_of(request.provider, request.provider_kwargs.get("api_key")) or ""
    digest = hashlib.sha256(f"{request.provider_base_url or ''} {key}".encode()).hexdigest()
    return f"{project}:{model_label(request)}:{digest[:12]}"


def _estimated_tokens(request: ModelRequest, limit: ModelLimit) -> int:
    if limit.tokens_per_second is None:
        return 0
    said = _characters([request.messages, request.system_prompt, request.tools, request.output_schema])
    options = request.provider_kwargs
    names = ("max_output_tokens", "max_completion_tokens", "max_tokens")
    bounds = [options.get(name) for name in names] + [request.max_output_tokens]
    output = next((bound for bound in bounds if isinstance(bound, int)), ASSUMED_OUTPUT_TOKENS)
    return said // CHARACTERS_PER_TOKEN + output


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return IMAGE_CHARACTERS if value.startswith("data:") else len(value)
    if isinstance(value, Mapping):
        return sum(_characters(item) for item in value.values())
    return sum(_characters(item) for item in value) if isinstance(value, list | tuple) else 0
