"""What works with which provider, over HTTP: the table of docs/providers.md, row by row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from model_wires import PIXEL, WIRES
from servers import TEST_KEY, Answer, Recorder
from test_model_streams import Chunks

from polos.models.call import generate
from polos.models.request import ModelAnswer, ModelRequest

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
HELLO = [{"role": "user", "content": "hello"}]
PARAMETERS = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": PARAMETERS}
IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
OPTIONS: dict[str, Any] = {
    "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "gemini": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 512}}},
    "openai responses": {"reasoning": {"effort": "low"}},
    "ollama": {"think": True},
}
"""How each is asked to think; the others by ``reasoning_effort``."""
GOES_BACK = ("openai responses", "anthropic", "gemini", "fireworks")
"""Who gets to see its reasoning again."""
NO_CACHE = ("ollama",)

each_wire = pytest.mark.parametrize("name", WIRES)


async def _ask(record: Recorder, name: str, answer: Any, **fields: Any) -> ModelAnswer:
    wire = WIRES[name]
    record.answers(answer if isinstance(answer, Answer) else Answer(answer))
    on_chunk = fields.pop("on_chunk", None)
    options = fields.pop("provider_kwargs", {})
    key = {"api_key": TEST_KEY} if wire.provider == "litellm" else {}
    known: dict[str, Any] = {
        "provider": wire.provider,
        "model": wire.model,
        "messages": HELLO,
        "provider_base_url": record.url + wire.base,
        "provider_llm_api": wire.llm_api,
        "provider_kwargs": {**key, **options},
    }
    return await generate(ModelRequest(**{**known, **fields}), on_chunk=on_chunk)


def _speaks(name: str) -> Any:
    return WIRES[name].speaks


@each_wire
async def test_text(record: Recorder, name: str) -> None:
    answer = await _ask(
        record, name, _speaks(name).text("good day"), system_prompt="be brief", max_output_tokens=50
    )
    assert (answer.content, answer.stop_reason) == ("good day", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (11, 7, 18)
    [seen] = record.seen
    assert seen.path.partition("?")[0] == WIRES[name].path
    assert TEST_KEY in str(seen.headers) or TEST_KEY in seen.path or name == "ollama"
    assert _speaks(name).system(seen.body) == "be brief"
    assert _speaks(name).limit(seen.body) == 50


@each_wire
async def test_streaming(record: Recorder, name: str) -> None:
    chunks = Chunks()
    streamed = Answer(pieces=_speaks(name).pieces("good day", " to you"))
    answer = await _ask(record, name, streamed, on_chunk=chunks.append)
    assert answer.content == chunks.text == "good day to you"
    assert len(chunks) > 1
    assert answer.usage.total_tokens == 18


@each_wire
async def test_parallel_tool_calls(record: Recorder, name: str) -> None:
    """Of one id or none, as some servers send them; their outputs find their way back."""
    first = await _ask(record, name, _speaks(name).calls({"x": 1}, {"x": 2}), tools=[TOOL])
    ids = [call.call_id for call in first.tool_calls]
    assert [json.loads(call.function.arguments) for call in first.tool_calls] == [{"x": 1}, {"x": 2}]
    assert len({*ids}) == 2
    assert all(ids)
    assert first.stop_reason == "tool_calls"

    outputs = [{"type": "function_call_output", "call_id": each, "output": f"out {each}"} for each in ids]
    messages = [*HELLO, *first.raw_output, *outputs]
    await _ask(record, name, _speaks(name).text("done"), tools=[TOOL], messages=messages)
    sent = _speaks(name).outputs(record.last.body)
    assert len(sent) == 2
    for (sent_id, text), call_id in zip(sent, ids, strict=True):
        assert sent_id in ("", call_id)
        assert f"out {call_id}" in text


@each_wire
async def test_malformed_arguments_are_passed_on_and_may_go_back(record: Recorder, name: str) -> None:
    """The loop answers them with what is wrong; the conversation must stay one that the provider takes."""
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": '}
    output = {"type": "function_call_output", "call_id": "c1", "output": "Error: no JSON", "is_error": True}
    messages = [*HELLO, call, output]
    answer = await _ask(record, name, _speaks(name).text("sorry"), tools=[TOOL], messages=messages)
    assert answer.content == "sorry"
    [(_, text)] = _speaks(name).outputs(record.last.body)
    assert "Error: no JSON" in text


@each_wire
async def test_reasoning(record: Recorder, name: str) -> None:
    options = OPTIONS.get(name, {"reasoning_effort": "low"})
    answer = await _ask(record, name, _speaks(name).thought("well", "good day"), provider_kwargs=options)
    assert answer.content == "good day"
    for option, value in options.items():
        assert _includes(record.last.body[option], value)
    assert "well" in json.dumps(answer.raw_output)
    await _ask(record, name, _speaks(name).text("x"), messages=[*HELLO, *answer.raw_output, *HELLO])
    assert _speaks(name).thoughts(record.last.body) == (["well"] if name in GOES_BACK else [])


@pytest.mark.parametrize("model", ["deepseek/deepseek-reasoner", "moonshot/kimi-k2-thinking"])
async def test_reasoning_goes_back_to_those_who_insist(record: Recorder, model: str) -> None:
    answer = await _ask(record, "litellm", WIRES["litellm"].speaks.thought("well", "x"), model=model)
    await _ask(
        record, "litellm", _speaks("litellm").text("x"), model=model, messages=[*HELLO, *answer.raw_output]
    )
    assert _speaks("litellm").thoughts(record.last.body) == ["well"]


def _includes(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all(_includes(found.get(key), value) for key, value in wanted.items())
    return bool(found == wanted)


@each_wire
async def test_images(record: Recorder, name: str) -> None:
    content = [{"type": "input_text", "text": "What is this?"}, IMAGE]
    await _ask(record, name, _speaks(name).text("a dot"), messages=[{"role": "user", "content": content}])
    assert _speaks(name).images(record.last.body) == [IMAGE["image_url"]]


@each_wire
async def test_cached_tokens(record: Recorder, name: str) -> None:
    usage = (await _ask(record, name, _speaks(name).cached())).usage
    assert usage.input_tokens == 11
    assert usage.cache_read_input_tokens == (None if name in NO_CACHE else 4)
    assert usage.cache_creation_input_tokens in ((2,) if name == "anthropic" else (None, 0))


@each_wire
async def test_marks_for_prompt_caches(record: Recorder, name: str) -> None:
    fields = {"tools": [TOOL, {**TOOL, "name": "g"}], "system_prompt": "be brief"}
    await _ask(record, name, _speaks(name).text("x"), messages=[*HELLO, *HELLO], **fields)
    body = record.last.body
    assert json.dumps(body).count("cache_control") == (3 if name == "anthropic" else 0)
    if name == "anthropic":
        marked = (body["system"][-1], body["tools"][-1], body["messages"][-1]["content"][-1])
        assert all("cache_control" in each for each in marked)


def test_the_documentation_has_each_of_them() -> None:
    rows = re.findall(r"^\| `(\w+)`([^|]*)\|", PAGE.read_text().partition("## Prices")[0], re.MULTILINE)
    assert {f"{name}{note}".replace("`", "").strip() for name, note in rows} == set(WIRES)
