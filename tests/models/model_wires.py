"""The formats providers speak, each as it answers and as it is asked, for tests over all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from servers import anthropic_answer, chat_answer, gemini_answer, responses_answer, responses_text
from test_model_stream_twins import (
    NO_TEXT,
    anthropic_pieces,
    chat_call,
    chat_pieces,
    gemini_pieces,
    responses_pieces,
    text_delta,
)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Chat:
    """Chat completions, of OpenAI and whoever imitates it."""

    def text(self, text: str, **usage: Any) -> Any:
        return chat_answer(text, **usage)

    def pieces(self, *texts: str) -> list[bytes]:
        return chat_pieces(*({"content": text} for text in texts))

    def calls(self, *arguments: dict[str, Any]) -> Any:
        """Calls of ``f``, all of one id, which some servers send."""
        return chat_answer(None, [chat_call("same", json.dumps(each)) for each in arguments])

    def cached(self) -> Any:
        return chat_answer("x", prompt_tokens_details={"cached_tokens": 4})

    def thought(self, thought: str, text: str) -> Any:
        answer = chat_answer(text)
        answer["choices"][0]["message"]["reasoning_content"] = thought
        return answer

    def outputs(self, body: Any) -> list[tuple[str, str]]:
        return [(m["tool_call_id"], m["content"]) for m in body["messages"] if m["role"] == "tool"]

    def images(self, body: Any) -> list[str]:
        blocks = body["messages"][-1]["content"]
        return [block["image_url"]["url"] for block in blocks if block["type"] == "image_url"]

    def system(self, body: Any) -> Any:
        return body["messages"][0]["content"]

    def limit(self, body: Any) -> int:
        return body.get("max_tokens") or body["max_completion_tokens"]  # type: ignore[no-any-return]

    def thoughts(self, body: Any) -> list[str]:
        return [m["reasoning_content"] for m in body["messages"] if m.get("reasoning_content")]


class Groq(Chat):
    """Chat completions with a field for reasoning of its own."""

    def thought(self, thought: str, text: str) -> Any:
        answer = chat_answer(text)
        answer["choices"][0]["message"]["reasoning"] = thought
        return answer


class Responses:
    """OpenAI's Responses API."""

    def text(self, text: str, **_: Any) -> Any:
        return responses_answer(responses_text(text))

    def pieces(self, *texts: str) -> list[bytes]:
        return responses_pieces(responses_answer(responses_text("".join(texts))))

    def calls(self, *arguments: dict[str, Any]) -> Any:
        call = {"type": "function_call", "id": "fc", "call_id": "same", "name": "f"}
        return responses_answer(*({**call, "arguments": json.dumps(each)} for each in arguments))

    def cached(self) -> Any:
        return responses_answer(responses_text("x"))

    def thought(self, thought: str, text: str) -> Any:
        summary = [{"type": "summary_text", "text": thought}]
        item = {"type": "reasoning", "id": "rs", "summary": summary, "encrypted_content": "abc"}
        return responses_answer(item, responses_text(text))

    def outputs(self, body: Any) -> list[tuple[str, str]]:
        items = body["input"]
        return [(i["call_id"], i["output"]) for i in items if i.get("type") == "function_call_output"]

    def images(self, body: Any) -> list[str]:
        blocks = body["input"][-1]["content"]
        return [block["image_url"] for block in blocks if block["type"] == "input_image"]

    def system(self, body: Any) -> Any:
        return body["instructions"]

    def limit(self, body: Any) -> int:
        return body["max_output_tokens"]  # type: ignore[no-any-return]

    def thoughts(self, body: Any) -> list[str]:
        items = [item for item in body["input"] if item.get("type") == "reasoning"]
        return [item["summary"][0]["text"] for item in items if item["encrypted_content"]]


class Anthropic:
    """Anthropic's messages."""

    def text(self, text: str, **_: Any) -> Any:
        return anthropic_answer({"type": "text", "text": text})

    def pieces(self, *texts: str) -> list[bytes]:
        return anthropic_pieces((NO_TEXT, *(text_delta(text) for text in texts)))

    def calls(self, *arguments: dict[str, Any]) -> Any:
        blocks = [{"type": "tool_use", "id": "same", "name": "f", "input": each} for each in arguments]
        return anthropic_answer(*blocks, stop_reason="tool_use")

    def cached(self) -> Any:
        cache = {"input_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
        return anthropic_answer({"type": "text", "text": "x"}, **cache)

    def thought(self, thought: str, text: str) -> Any:
        block = {"type": "thinking", "thinking": thought, "signature": "s"}
        return anthropic_answer(block, {"type": "text", "text": text})

    def outputs(self, body: Any) -> list[tuple[str, str]]:
        return [(b["tool_use_id"], _text(b["content"])) for b in _blocks(body, "tool_result")]

    def images(self, body: Any) -> list[str]:
        sources = [block["source"] for block in _blocks(body, "image")]
        return [f"data:{source['media_type']};base64,{source['data']}" for source in sources]

    def system(self, body: Any) -> Any:
        return _text(body["system"])

    def limit(self, body: Any) -> int:
        return body["max_tokens"]  # type: ignore[no-any-return]

    def thoughts(self, body: Any) -> list[str]:
        return [block["thinking"] for block in _blocks(body, "thinking") if block["signature"] == "s"]


class Gemini:
    """Gemini's contents."""

    def text(self, text: str, **_: Any) -> Any:
        return gemini_answer({"text": text})

    def pieces(self, *texts: str) -> list[bytes]:
        return gemini_pieces(*([{"text": text}] for text in texts))

    def calls(self, *arguments: dict[str, Any]) -> Any:
        return gemini_answer(*({"functionCall": {"name": "f", "args": each}} for each in arguments))

    def cached(self) -> Any:
        answer = gemini_answer({"text": "x"})
        answer["usageMetadata"]["cachedContentTokenCount"] = 4
        return answer

    def thought(self, thought: str, text: str) -> Any:
        return gemini_answer({"text": thought, "thought": True}, {"text": text, "thoughtSignature": "c2ln"})

    def outputs(self, body: Any) -> list[tuple[str, str]]:
        parts = [part for content in body["contents"] for part in content["parts"]]
        found = [_camel(part, "functionResponse") for part in parts]
        return [("", json.dumps(response["response"])) for response in found if response]

    def images(self, body: Any) -> list[str]:
        found = [_camel(part, "inlineData") for part in body["contents"][-1]["parts"]]
        return [f"data:{_camel(each, 'mimeType')};base64,{each['data']}" for each in found if each]

    def system(self, body: Any) -> Any:
        return body["systemInstruction"]["parts"][0]["text"]

    def limit(self, body: Any) -> int:
        return body["generationConfig"]["max_output_tokens"]  # type: ignore[no-any-return]

    def thoughts(self, body: Any) -> list[str]:
        return ["well"] if "c2ln" in json.dumps(body) else []


class Ollama:
    """Ollama's own chat API."""

    def text(self, text: str, **fields: Any) -> Any:
        message = {"role": "assistant", "content": text, **fields}
        counts = {"prompt_eval_count": 11, "eval_count": 7}
        return {"model": "the-model", "message": message, "done": True, "done_reason": "stop", **counts}

    def pieces(self, *texts: str) -> list[bytes]:
        lines = [{"message": {"role": "assistant", "content": text}, "done": False} for text in texts]
        return [json.dumps(line).encode() + b"\n" for line in (*lines, self.text(""))]

    def calls(self, *arguments: dict[str, Any]) -> Any:
        calls = [{"function": {"name": "f", "arguments": each}} for each in arguments]
        return self.text("", tool_calls=calls)

    def cached(self) -> Any:
        return self.text("x")

    def thought(self, thought: str, text: str) -> Any:
        return self.text(text, thinking=thought)

    def outputs(self, body: Any) -> list[tuple[str, str]]:
        return [("", m["content"]) for m in body["messages"] if m["role"] == "tool"]

    def images(self, body: Any) -> list[str]:
        return [f"data:image/png;base64,{image}" for image in body["messages"][-1]["images"]]

    def system(self, body: Any) -> Any:
        return body["messages"][0]["content"]

    def limit(self, body: Any) -> int:
        return body["options"]["num_predict"]  # type: ignore[no-any-return]

    def thoughts(self, body: Any) -> list[str]:
        return [message["thinking"] for message in body["messages"] if message.get("thinking")]


@dataclass(frozen=True)
class Wire:
    """One provider as it is asked over HTTP.

    Attributes:
        speaks: How it answers, and where its requests have what.
        base: What its base URL ends with.
        path: Where requests go.
    """

    provider: str
    model: str
    speaks: Any
    base: str
    path: str
    llm_api: str | None = None


GEMINI = "gemini-2.5-flash"
WIRES = {
    "openai responses": Wire("openai", "gpt-5", Responses(), "/v1", "/v1/responses"),
    "openai chat": Wire("openai", "gpt-4o", Chat(), "/v1", "/v1/chat/completions", "chat_completions"),
    "anthropic": Wire("anthropic", "claude-sonnet-4-6", Anthropic(), "", "/v1/messages"),
    "gemini": Wire(
        "gemini", "gemini-2.5-flash", Gemini(), "", "/v1beta/models/gemini-2.5-flash:generateContent"
    ),
    "groq": Wire("groq", "openai/gpt-oss-120b", Groq(), "/openai/v1", "/openai/v1/chat/completions"),
    "together": Wire("together", "Qwen/Qwen3", Chat(), "/v1", "/v1/chat/completions"),
    "fireworks": Wire("fireworks", "accounts/fireworks/models/m", Chat(), "/f/v1", "/f/v1/chat/completions"),
    "azure": Wire("azure", "deployed", Chat(), "", "/openai/deployments/deployed/chat/completions"),
    "ollama": Wire("ollama", "llama3.1", Ollama(), "", "/api/chat"),
    "litellm": Wire("litellm", "xai/grok-4", Chat(), "/v1", "/v1/chat/completions"),
}


def _blocks(body: Any, kind: str) -> list[Any]:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [block for content in contents for block in content if block["type"] == kind]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _camel(part: Any, name: str) -> Any:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return part.get(name) or part.get(snake)
