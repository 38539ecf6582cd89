"""Calls go out the same by either way, LiteLLM's and ours: one request, one answer, one price."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_wires import PIXEL
from servers import (
    Answer,
    Recorder,
    Seen,
    anthropic_answer,
    chat_answer,
    responses_answer,
    responses_text,
)

from polos.errors import ModelError
from polos.models import prices
from polos.models.call import generate
from polos.models.plain_prices import plain_total
from polos.models.providers import PROVIDERS
from polos.models.request import Item, ModelRequest
from polos.types import Usage

USER: Item = {"role": "user", "content": "a"}
CALL: Item = {"type": "function_call", "call_id": "c:1", "name": "f", "arguments": '{"a": 1}'}
BROKEN: Item = {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "not json"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CONVERSATIONS: dict[str, list[Item]] = {
    "one message": [USER],
    "begun by the model": [{"role": "assistant", "content": "I begin"}, USER],
    "several of one role": [
        USER,
        USER,
        *[{"role": "assistant", "content": text} for text in ("x  ", "y")],
        USER,
    ],
    "images": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
                {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}},
            ],
        }
    ],
    "calls": [
        USER,
        {"role": "assistant", "content": "calling"},
        CALL,
        BROKEN,
        {"type": "function_call_output", "call_id": "c:1", "output": "ok"},
        {"type": "function_call_output", "call_id": "c2", "output": "bad", "is_error": True},
        {"role": "user", "content": "go on"},
    ],
    "blocks from a tool": [
        USER,
        CALL,
        {"type": "function_call_output", "call_id": "c:1", "output": [{"type": "text", "text": "t"}, IMAGE]},
    ],
    "nothing from a tool": [USER, CALL, {"type": "function_call_output", "call_id": "c:1", "output": ""}],
    "reasoning": [
        USER,
        {"type": "reasoning", "reasoning_content": "hm"},
        {"role": "assistant", "content": "b"},
    ],
    "ended by the model": [USER, {"role": "assistant", "content": "b"}],
}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "title": "A"}},
    "required": ["a"],
    "title": "T",
}
TOOLS = [
    {"type": "function", "name": "f", "description": "does f", "parameters": SCHEMA},
    {"type": "function", "name": "g", "description": "", "parameters": {"type": "object", "properties": {}}},
]
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "usual": {
        "system_prompt": "Be good",
        "tools": TOOLS,
        "temperature": 0.3,
        "max_output_tokens": 77,
        "top_p": 0.5,
    },
    "own": {
        "tools": TOOLS,
        "provider_kwargs": {
            "tool_choice": "auto",
            "seed": 3,
            "extra_headers": {"X-A": "b"},
            "metadata": {"x": "y"},
        },
    },
    "schema": {"output_schema": SCHEMA, "output_schema_name": "my schema", "idempotency_key": "k"},
}
MODELS = [
    ("openai", "gpt-4o", "responses"),
    ("openai", "gpt-5", "responses"),
    ("openai", "gpt-4o", "chat_completions"),
    ("groq", "llama-3.3-70b-versatile", None),
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", None),
    ("anthropic", "claude-sonnet-4-5", None),
    ("anthropic", "claude-unknown", None),
]
HEADERS = ("authorization", "x-api-key", "anthropic-version", "anthropic-beta", "idempotency-key", "x-a")
CASES = [("one message", options) for options in OPTIONS] + list(zip(CONVERSATIONS, itertools.cycle(OPTIONS)))


def told(seen: Seen) -> Answer:
    """Return an answer in the words of whoever is asked."""
    if seen.path.endswith("/messages"):
        return Answer(anthropic_answer({"type": "text", "text": "yes"}))
    return Answer(responses_answer(responses_text("yes")) if "responses" in seen.path else chat_answer("yes"))


async def sent(record: Recorder, path: str, request: ModelRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what went out this way, and what came back."""
    monkeypatch.setenv("POLOS_MODEL_PATH", path)
    record.seen.clear()
    answer = await generate(copy.deepcopy(request))
    [seen] = record.seen
    headers = {name: seen.headers[name] for name in HEADERS if name in seen.headers}
    return {"path": seen.path, "body": seen.body, "headers": headers, "answer": answer.model_dump()}


def asked(
    record: Recorder, model: tuple[str, str, str | None], messages: list[Item], **options: Any
) -> ModelRequest:
    provider, name, llm_api = model
    version = "" if provider == "anthropic" else "/v1"
    return ModelRequest(
        provider=provider,
        model=name,
        messages=messages,
        provider_llm_api=llm_api,
        provider_base_url=f"{record.url}{version}",
        **options,
    )


@pytest.mark.parametrize("model", MODELS, ids=str)
async def test_both_ways_send_one_request_and_read_one_answer(
    record: Recorder, model: tuple[str, str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    record.answer = told
    for conversation, options in CASES:
        request = asked(record, model, CONVERSATIONS[conversation], **OPTIONS[options])
        lean = await sent(record, "lean", request, monkeypatch)
        assert lean == await sent(record, "litellm", request, monkeypatch), (conversation, options)


async def test_what_one_provider_left_does_not_go_to_another(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM sends it, and some servers refuse fields they do not know."""
    record.answer = told
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    left = [
        USER,
        {"type": "reasoning", "thinking_blocks": [thought]},
        {"role": "assistant", "content": "b", "provider_specific_fields": {"x": 1}},
        {**CALL, "provider_specific_fields": {"y": 2}},
        {"type": "function_call_output", "call_id": "c:1", "output": "ok"},
    ]
    found = await sent(record, "lean", asked(record, MODELS[2], left), monkeypatch)
    assert found["body"]["messages"][1].keys() == {"role", "content", "tool_calls"}
    assert found["body"]["messages"][1]["tool_calls"][0].keys() == {"id", "type", "function"}
    found = await sent(record, "lean", asked(record, MODELS[5], left), monkeypatch)
    assert found["body"]["messages"][1]["content"][0] == thought


async def test_an_empty_message_reaches_anthropic_as_a_word(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.answer = told
    request = asked(record, MODELS[5], [{"role": "user", "content": ""}])
    found = await sent(record, "lean", request, monkeypatch)
    [message] = found["body"]["messages"]
    assert message["content"][0]["text"] == "(empty message)"


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (("gemini", "gemini-2.5-flash", None), {}),
        (("openai", "gpt-5", "chat_completions"), {}),
        (("anthropic", "claude-sonnet-4-5", None), {"tools": [{"type": "web_search_20250305", "name": "w"}]}),
    ],
)
async def test_what_the_lean_way_does_not_know_is_said(
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    model: tuple[str, str, str | None],
    options: dict[str, Any],
) -> None:
    monkeypatch.setenv("POLOS_MODEL_PATH", "lean")
    with pytest.raises(ModelError, match="set it to auto"):
        await generate(asked(record, model, [USER], **options))
    assert not record.seen


ROWS = {"openai": "openai", "anthropic": "anthropic", "groq": "groq", "together_ai": "together"}
USAGES = [
    Usage(input_tokens=1000, output_tokens=10, total_tokens=1010),
    Usage(input_tokens=1000, output_tokens=10, total_tokens=1010, cache_read_input_tokens=700),
    Usage(
        input_tokens=1000,
        output_tokens=10,
        total_tokens=1010,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=300,
    ),
    Usage(input_tokens=900_000, output_tokens=10, total_tokens=900_010),
]


def test_sums_are_litellms_prices(litellm_loaded: None) -> None:
    """For every model that the lean way may ask; what is more than a sum is left to LiteLLM."""
    from polos.models.library import litellm

    compared = 0
    for name, row in litellm.model_cost.items():
        provider = PROVIDERS.get(ROWS.get(row.get("litellm_provider"), ""))
        if (
            provider is None
            or row.get("mode") not in ("chat", "responses")
            or "input_cost_per_token" not in row
        ):
            continue
        for usage in USAGES:
            if (plain := plain_total(row, usage, None, None)) is not None:
                model, billed = provider.litellm_model(name), prices._litellm_usage(usage, None)
                theirs = litellm.cost_per_token(
                    model=model,
                    custom_llm_provider=row["litellm_provider"],
                    usage_object=billed,
                    requested_model_info_override=dict(row),
                )
                assert plain == pytest.approx(sum(theirs)), (name, usage)
                compared += 1
    assert compared > 400


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_tier_of_service_is_no_sum(tier: str) -> None:
    row = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    usage = Usage(input_tokens=10, output_tokens=10, total_tokens=20)
    assert plain_total(row, usage, None, tier) is None
    assert plain_total(row, usage, None, "default") == pytest.approx(3e-5)
    audio = {"prompt_tokens_details": {"audio_tokens": 3}}
    assert plain_total(row, usage, audio, None) is None


def test_a_program_that_calls_the_lean_way_never_imports_litellm(keys: None, tmp_path: Path) -> None:
    from servers import model_server

    with model_server() as server:
        server.says("Hello.")
        program = tmp_path / "program.py"
        program.write_text(
            "import asyncio, sys\n"
            "from polos.models.call import generate, preload, cost\n"
            "from polos.models.request import ModelRequest\n"
            "from polos.types import Usage\n"
            "request = ModelRequest(provider='openai', model='gpt-4o',"
            " messages=[{'role': 'user', 'content': 'a'}])\n"
            "preload([request])\n"
            "answer = asyncio.run(generate(request))\n"
            "assert cost('openai', 'gpt-4o', Usage(input_tokens=1000, total_tokens=1000)) > 0\n"
            "print(answer.content, answer.usage.cost > 0, 'litellm' in sys.modules)\n"
        )
        ended = subprocess.run(
            [sys.executable, program],
            env={**os.environ, **server.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.stdout.split() == ["Hello.", "True", "False"], ended.stderr
