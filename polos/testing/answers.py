"""What a scripted model answers: texts, tool calls, data, errors; made from what tests write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from polos import serialization
from polos.errors import ModelError
from polos.models.kinds import kind_of, may_pass
from polos.models.request import Item, ModelAnswer, ModelRequest
from polos.types import ToolCall, ToolCallFunction, Usage

CHARACTERS_PER_TOKEN = 4  # for scripts that do not say what they use
WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+\Z")  # with the space before it, the last with that after it


@dataclass(frozen=True)
class ScriptedAnswer:
    """One answer in full; made by `answer`.

    Attributes:
        text: None for an answer that only calls tools.
        calls: Tool calls; those without an id get one.
        chunks: The pieces the text is streamed in; words, if there are none.
        pause_seconds: Before each chunk, or before an answer that is not streamed; by the runtime's clock.
        usage: By default counted from the lengths of the texts.
        stop_reason: By default ``tool_calls`` or ``stop``.
    """

    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    chunks: tuple[str, ...] = ()
    pause_seconds: float = 0.0
    usage: Usage | None = None
    stop_reason: str | None = None
    raw_output: tuple[Item, ...] = field(default=())

    def to_model_answer(self, request: ModelRequest, number: int) -> ModelAnswer:
        """Return it as a model's; `number` is that of the call in the script."""
        calls = [_with_id(call, number, place) for place, call in enumerate(self.calls)]
        return ModelAnswer(
            content=self.text,
            tool_calls=calls,
            usage=self.usage or _counted(request, self.text, calls),
            raw_output=list(self.raw_output) or _items(self.text, calls),
            stop_reason=self.stop_reason or ("tool_calls" if calls else "stop"),
            model=request.model,
        )

    def pieces(self) -> list[str]:
        """Return the text as it is streamed."""
        return list(self.chunks) if self.chunks else WORD.findall(self.text or "")


Answer = str | BaseModel | Mapping[str, Any] | ToolCall | Sequence[ToolCall] | ScriptedAnswer | Exception


def answer(
    text: str | None = None,
    *calls: ToolCall,
    chunks: Sequence[str] = (),
    pause_seconds: float = 0.0,
    usage: Usage | None = None,
    stop_reason: str | None = None,
) -> ScriptedAnswer:
    """Return an answer that is more than a text: with tool calls, chunks and pauses, usage, a reason to stop.

    Args:
        text: By default the chunks in a row.
        calls: Of `tool_call`.
        chunks: The pieces of a streamed answer.
        pause_seconds: Before each chunk; before the answer, where it is not streamed.
        usage: What the call is billed for.
        stop_reason: Such as ``length`` or ``content_filter``.

    Raises:
        ValueError: Text and chunks are not the same, or there is nothing in the answer.
    """
    whole = "".join(chunks)
    if text is not None and chunks and whole != text:
        raise ValueError(f"The chunks give {whole!r}, not the text {text!r}; leave one of them out")
    return ScriptedAnswer(
        text=whole if chunks else text,
        calls=calls,
        chunks=tuple(chunks),
        pause_seconds=pause_seconds,
        usage=usage,
        stop_reason=stop_reason,
    )


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """Return a model's wish to call a tool. Arguments are its fields; models are written as their data.

    For arguments that no Python call can have, such as malformed JSON, make a `polos.ToolCall`.
    """
    text = json.dumps(serialization.to_data(arguments))
    return ToolCall(id="", function=ToolCallFunction(name=name, arguments=text))


def error(status: int, message: str = "", *, retry_after_seconds: float | None = None) -> ModelError:
    """Return a provider's refusal, as the runtime sees it: ``error(429, retry_after_seconds=3)``.

    Args:
        status: HTTP status: 401 for a wrong key, 408 for a timeout, 429 for too many requests, 500 and above
            for a provider that is down.
        message: What the provider says.
        retry_after_seconds: When it says to ask again.
    """
    kind = kind_of(status, text=message)
    return ModelError(
        message or f"scripted error {status}",
        provider="scripted",
        kind=kind,
        status_code=status,
        retryable=may_pass(kind),
        retry_after_seconds=retry_after_seconds,
    )


def to_answer(given: Any) -> ScriptedAnswer | ModelAnswer | Exception:
    """Return what a test wrote as an answer.

    Raises:
        TypeError: It is none; says what is.
    """
    match given:
        case ScriptedAnswer() | ModelAnswer() | Exception():
            return given
        case str():
            return ScriptedAnswer(text=given)
        case ToolCall():
            return ScriptedAnswer(calls=(given,))
        case BaseModel() | Mapping():
            return ScriptedAnswer(text=json.dumps(serialization.to_data(given)))
        case list() | tuple() if given and all(isinstance(item, ToolCall) for item in given):
            return ScriptedAnswer(calls=tuple(given))
    raise TypeError(
        f"{given!r} is no answer of a model: write a text, tool_call(...), a list of those, a dict or model "
        "(structured output), answer(...), error(...) or another exception, or a function of the request"
    )


def _with_id(call: ToolCall, number: int, place: int) -> ToolCall:
    if call.id or call.call_id:
        return call
    name = f"call_{number}_{place}"
    return call.model_copy(update={"id": name, "call_id": name})


def _items(text: str | None, calls: Sequence[ToolCall]) -> list[Item]:
    said = [{"role": "assistant", "content": text}] if text else []
    return [
        *said,
        *(
            {
                "type": "function_call",
                "name": call.function.name,
                "call_id": call.call_id or call.id,
                "arguments": call.function.arguments,
            }
            for call in calls
        ),
    ]


def _counted(request: ModelRequest, text: str | None, calls: Sequence[ToolCall]) -> Usage:
    asked = [json.dumps(request.messages), request.system_prompt or "", json.dumps(request.tools)]
    said = [text or "", *(call.function.arguments for call in calls)]
    tokens_in, tokens_out = _tokens(asked), _tokens(said)
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out)


def _tokens(texts: Sequence[str]) -> int:
    return max(sum(map(len, texts)) // CHARACTERS_PER_TOKEN, 1)
