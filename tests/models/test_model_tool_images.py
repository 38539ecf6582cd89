"""Images that tools returned, on the wire: as images where a provider takes them, else as a note."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers import (
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)

from polos.models.call import generate
from polos.models.request import ModelRequest

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "look"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [
            {"type": "input_text", "text": "a dot"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
        ],
    },
]
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
TAKES_THEM = {
    "openai": ("gpt-4o", "/v1", responses_answer(responses_text("seen"))),
    "anthropic": ("claude-sonnet-4-5", "", anthropic_answer({"type": "text", "text": "seen"})),
    "gemini": ("gemini-2.5-flash", "/v1beta", gemini_answer({"text": "seen"})),
}
TAKES_TEXT = {"groq": "llama-3.3-70b-versatile", "together": "some/model"}


async def sent(record: Recorder, provider: str, model: str, path: str, answer: Any, **fields: Any) -> str:
    """Return the body of the request."""
    record.answer = lambda _: Answer(answer)
    url = record.url + path
    request = ModelRequest(
        provider=provider, model=model, provider_base_url=url, messages=MESSAGES, tools=[TOOL], **fields
    )
    assert (await generate(request)).content
    return json.dumps(record.last.body)


@pytest.mark.parametrize("provider", TAKES_THEM)
async def test_as_an_image(record: Recorder, provider: str) -> None:
    body = await sent(record, provider, *TAKES_THEM[provider])
    assert PIXEL in body
    assert "a dot" in body


@pytest.mark.parametrize("provider", [*TAKES_TEXT, "openai"])
async def test_as_a_note(record: Recorder, provider: str) -> None:
    """Chat completions take text from tools only."""
    fields = {"provider_llm_api": "chat_completions"} if provider == "openai" else {}
    model = TAKES_TEXT.get(provider, "gpt-4o")
    body = await sent(record, provider, model, "/v1", chat_answer("seen"), **fields)
    assert PIXEL not in body
    assert r"a dot\n(image left out: this provider takes only text from tools)" in body
