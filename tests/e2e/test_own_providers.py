"""An agent whose model is a class of the user's own, through a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from polos.llm.providers import LLMProvider, LLMResponse, register_provider
from pydantic import BaseModel

from polos import Agent, Polos, WorkflowContext, tool
from polos.errors import ModelError


@register_provider("parrot")
class Parrot(LLMProvider):
    """Calls the tool once, then says what it returned; fails first where the model is called shaky."""

    failed: set[str] = set()  # noqa: RUF012 - of all objects

    async def generate(
        self, messages: Any, model: str, *args: Any, tool_results: Any = None, **options: Any
    ) -> LLMResponse:
        if model == "shaky" and model not in self.failed:
            self.failed.add(model)
            raise ModelError("not now", retryable=True)
        usage = {"input_tokens": 3, "output_tokens": 2}
        if tool_results:
            return LLMResponse(f"it said {tool_results[0]['output']}", usage)
        call = {"call_id": "c1", "function": {"name": "shout", "arguments": '{"text": "hey"}'}}
        return LLMResponse(None, usage, [call])

    async def stream(self, messages: Any, model: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        answer = await self.generate(messages, model, **options)
        for word in (answer.content or "").split():
            yield {"type": "text_delta", "data": {"content": f"{word} "}}
        for call in answer.tool_calls or ():
            yield {"type": "tool_call", "data": {"tool_call": call}}
        yield {"type": "done", "data": {"usage": answer.usage}}


class Words(BaseModel):
    text: str


@tool(description="Say it loudly")
async def shout(ctx: WorkflowContext, input: Words) -> str:
    return input.text.upper()


parrot = Agent(id="parrot-agent", provider="parrot", model="green", tools=[shout])
shaky = Agent(id="shaky-parrot-agent", provider="parrot", model="shaky", tools=[shout])


async def test_it_calls_tools_and_answers(polos: Polos) -> None:
    result = await parrot.run(polos, "hello")
    assert result.result == 'it said "HEY"'
    assert result.usage.total_tokens == 10


async def test_it_streams(polos: Polos) -> None:
    stream = await parrot.stream(polos, "hello")
    assert "".join([piece async for piece in stream.text_chunks]) == 'it said "HEY" '
    assert (await stream.result()).result == 'it said "HEY" '


async def test_its_failures_are_repeated(polos: Polos) -> None:
    assert (await shaky.run(polos, "hello")).result == 'it said "HEY"'
