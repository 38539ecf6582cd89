"""Everything one attempt at a model call needs, whichever way it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polos.models.answers import CallIds
from polos.models.connections import Connections, Exchange
from polos.models.delivery import Delivery
from polos.models.failures import Call
from polos.models.messages import known_call_ids
from polos.models.providers import Endpoint, Provider
from polos.models.request import Item, ModelRequest
from polos.models.structured import native_fields, prompt_with_schema


@dataclass(frozen=True)
class Attempt:
    """Everything one attempt needs.

    Attributes:
        options: The fields that go into the provider's request last.
        by_prompt: Whether the system prompt asks for the output schema, wherever the provider has a field.
    """

    request: ModelRequest
    provider: Provider
    endpoint: Endpoint
    call: Call
    options: dict[str, Any]
    headers: dict[str, str] = field(repr=False)
    pool: Connections
    exchange: Exchange
    delivery: Delivery | None = None
    by_prompt: bool = False

    @property
    def litellm_model(self) -> str:
        """The model as LiteLLM names it."""
        return self.provider.litellm_model(self.request.model)

    def call_ids(self) -> CallIds:
        """Return what makes the call ids of the whole answer unique."""
        if self.delivery is not None:
            return self.delivery.call_ids()
        return CallIds(known_call_ids(self.request.messages))

    def schema_fields(self, *, responses: bool = False) -> Item:
        """Return the fields that ask for the output schema; none where the prompt has to."""
        if self.by_prompt:
            return {}
        streamed = self.exchange.streamed is not None
        return native_fields(
            self.provider, self.request, options=self.options, responses=responses, streamed=streamed
        )

    def system_prompt(self, schema_fields: Item) -> str | None:
        """Return the system prompt, which asks for the output schema where no field does."""
        return self.request.system_prompt if schema_fields else prompt_with_schema(self.request)
