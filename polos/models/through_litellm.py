"""Calls that LiteLLM makes: it knows every provider, and takes 5 ms of a processor for each."""

from __future__ import annotations

from polos.models.answers import from_chat, from_responses
from polos.models.arguments import chat_arguments, common_arguments, responses_arguments
from polos.models.attempt import Attempt
from polos.models.connections import Body
from polos.models.fields import may_think_aloud
from polos.models.request import ModelAnswer
from polos.models.wire import complete, respond


async def ask_chat(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    """Ask as the provider's own API wants it."""
    body = await complete(attempt.exchange, **common_arguments(attempt), **chat_arguments(attempt))
    return from_chat(body, attempt.call_ids(), thinks_aloud=may_think_aloud(attempt)), body


async def ask_responses(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    """Ask OpenAI's Responses API."""
    body = await respond(attempt.exchange, **responses_arguments(attempt))
    return from_responses(body, attempt.call_ids()), body
