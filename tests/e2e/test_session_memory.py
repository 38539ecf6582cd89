"""What an agent remembers of a session: as providers see it, and as the journal holds it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backends import on_both
from models.servers import Answer, ModelServer, Recorder, Seen, anthropic_answer, chat_answer
from pydantic import BaseModel
from sqlalchemy import select
from weather import agent, agent_of, call_of, weather

from polos import Agent, GuardrailContext, GuardrailResult, Polos, WorkflowContext, guardrail, workflow
from polos.errors import RunFailedError
from polos.journal.statements import Statement
from polos.journal.steps import S
from polos.memory import (
    COMPACTION_PROMPT,
    SUMMARY_USER_PREFIX,
    CompactionConfig,
    SessionMemory,
    get_session_memory,
    put_session_memory,
)
from polos.memory.items import unpaired

pytestmark = pytest.mark.timeout(120)


def shape(items: list[dict[str, Any]]) -> list[str]:
    return [item.get("type") or item["role"] for item in items]


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


# -- what the next run begins with


@on_both
async def test_the_next_run_of_a_session_begins_with_what_was_said(polos: Polos, model: ModelServer) -> None:
    model.calls(("e2e_weather", {"city": "Paris"}))
    model.says("Mild in Paris.")
    model.says("You asked of Paris.")
    model.says("I know nothing of it.")
    await agent.run(polos, "How is Paris?", session_id="wire-1")
    await agent.run(polos, "What did I ask?", session_id="wire-1")
    await agent.run(polos, "What did I ask?", session_id="wire-2")

    second, other = (request.body["input"] for request in model.requests[-2:])
    said = ["user", "function_call", "function_call_output", "assistant", "user"]
    assert [item.get("role") or item["type"] for item in second] == said
    assert "How is Paris?" in str(second[0])
    assert second[1]["call_id"] == second[2]["call_id"]
    assert "Mild in Paris." in str(second[3])
    assert len(other) == 1

    memory = await polos.sessions.get_memory("wire-1")
    assert shape(memory.messages) == [
        "user",
        "function_call",
        "function_call_output",
        *["assistant", "user"],
        "assistant",
    ]
    assert memory.messages[-1] == {"role": "assistant", "content": "You asked of Paris."}


async def test_anthropic_gets_calls_with_their_results_and_no_old_thoughts(
    polos: Polos, told: Recorder
) -> None:
    thinking = {"type": "thinking", "thinking": "Paris, then.", "signature": "c2lnbmVk"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "e2e_weather", "input": {"city": "Paris"}}
    told.answers(
        Answer(anthropic_answer(thinking, call, stop_reason="tool_use")),
        Answer(anthropic_answer({"type": "text", "text": "Mild."})),
    )
    claude = Agent(
        id="memory-claude",
        provider="anthropic",
        model="claude-sonnet-4-5",
        tools=[weather],
        provider_base_url=told.url,
    )
    await claude.run(polos, "How is Paris?", session_id="claude")
    assert "Paris, then." in str(told.last.body["messages"])  # within the run it goes back
    await claude.run(polos, "And now?", session_id="claude")

    messages = told.last.body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [block["type"] for block in messages[1]["content"]] == ["tool_use"]
    result = messages[2]["content"][0]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", messages[1]["content"][0]["id"])
    assert "Paris, then." not in str(messages)


async def test_a_run_stores_a_watermark_and_nothing_of_the_history(polos: Polos, model: ModelServer) -> None:
    model.says("one")
    model.says("two")
    await agent.run(polos, "the first question", session_id="mark")
    handle = await agent.invoke(polos, {"input": "the second"}, session_id="mark")
    await polos.wait(handle.id)

    [turn] = [row for row in steps(polos, handle.id) if row["kind"] == "turn"]
    given = json.loads(turn["input"])
    assert given["messages"] == [{"role": "user", "content": "the second"}]
    assert (given["history"]["after"], given["history"]["until"]) == (0, 2)
    assert "first question" not in turn["input"]
    assert "first question" in str(model.requests[-1].body["input"])


def steps(polos: Polos, run_id: str) -> list[dict[str, Any]]:
    columns = ("name", "kind", "input", "output", "status")
    statement = Statement(
        select(*(S[name] for name in columns)).where(S.run_id == run_id).order_by(S.position)
    )
    transport: Any = polos._transport
    rows = transport._backend.journal.read(statement, {})
    return [dict(zip(columns, row, strict=True)) for row in rows]


# -- whose memory it is


@workflow(id="memory-review")
async def review(ctx: WorkflowContext, text: str) -> list[str]:
    """Two reviewers at once, and the first of them again."""
    both = await ctx.step.batch_agent_invoke_and_wait(
        "both", [reviewer.with_input(f"{reviewer.id}: {text}") for reviewer in (strict, kind)]
    )
    again = await ctx.step.agent_invoke_and_wait("again", strict.with_input("and now?"))
    return [*(item.result["result"] for item in both), again.result]


strict = Agent(id="memory-strict", provider="openai", model="gpt-4o", provider_llm_api="chat_completions")
kind = Agent(id="memory-kind", provider="openai", model="gpt-4o", provider_llm_api="chat_completions")


async def test_agents_of_one_session_never_see_each_other(
    polos: Polos, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is called twice sees its own earlier turn."""
    for reviewer in (strict, kind):
        monkeypatch.setattr(reviewer, "provider_base_url", told.url)
    told.answer = lambda seen: Answer(chat_answer(f"answer {len(seen.body['messages'])}"))
    result = await review.run(polos, "draft", session_id="reviewers")

    assert result == ["answer 1", "answer 1", "answer 3"]
    assert texts(told.last.body["messages"]) == ["memory-strict: draft", "answer 1", "and now?"]
    assert await polos.sessions.agents("reviewers") == ["memory-kind", "memory-strict"]
    with pytest.raises(ValueError, match="memory-kind, memory-strict"):
        await polos.sessions.get_memory("reviewers")


# -- what is left of runs that do not go well


async def test_a_failed_run_leaves_its_input_and_its_retry_the_rest(polos: Polos, told: Recorder) -> None:
    speaker = agent_of(told)
    told.answers(
        Answer(chat_answer(calls=[call_of("e2e_weather", '{"city": "Paris"}')])), Answer({}, status=401)
    )
    handle = await speaker.invoke(polos, {"input": "How is Paris?"}, session_id="failed")
    assert (await polos.wait(handle.id))["status"] == "failed"
    asked = {"role": "user", "content": "How is Paris?"}
    assert (await polos.sessions.get_memory("failed")).messages == [asked]

    told.answers(Answer(chat_answer("You asked of Paris.")))
    await speaker.run(polos, "What did I ask?", session_id="failed")
    assert texts(told.last.body["messages"]) == ["How is Paris?", "What did I ask?"]

    told.answers(Answer(chat_answer("Mild.")))
    await polos.retry(handle.id)
    assert (await polos.wait(handle.id))["status"] == "completed"
    messages = (await polos.sessions.get_memory("failed")).messages
    kept = ["user", "user", "assistant", "function_call", "function_call_output", "assistant"]
    assert shape(messages) == kept
    assert messages[-1]["content"] == "Mild."


async def test_calls_that_could_not_be_made_are_remembered_with_their_errors(
    polos: Polos, told: Recorder
) -> None:
    """Whatever a model calls, the session holds no call without an output."""
    bad = call_of("e2e_weather", '{"city": ')
    unknown = {**call_of("no_such_tool", "{}"), "id": "call_2"}
    doubled = {**call_of("e2e_weather", '{"city": "Paris"}'), "id": "call_2"}
    told.answers(Answer(chat_answer(calls=[bad, unknown, doubled])), Answer(chat_answer("Mild.")))
    await agent_of(told).run(polos, "How is Paris?", session_id="bad calls")

    messages = (await polos.sessions.get_memory("bad calls")).messages
    assert shape(messages) == ["user", *["function_call"] * 3, *["function_call_output"] * 3, "assistant"]
    assert unpaired(messages) == []
    assert len({item["call_id"] for item in messages if "call_id" in item}) == 3
    assert [item.get("is_error", False) for item in messages[4:7]] == [True, True, False]
    await agent_of(told).run(polos, "And now?", session_id="bad calls")
    assert [message["role"] for message in told.last.body["messages"]][-1] == "user"


@guardrail
def no_secrets(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    if "refuse me" in seen.content:
        return GuardrailResult.fail("say it otherwise")
    return GuardrailResult.continue_with(modified_content=seen.content.replace("4711", "****"))


async def test_refused_answers_are_forgotten_and_changed_ones_kept_as_changed(
    polos: Polos, told: Recorder
) -> None:
    guarded = Agent(
        id="memory-guarded",
        provider="openai",
        model="gpt-4o",
        guardrails=[no_secrets],
        provider_base_url=told.url,
        provider_llm_api="chat_completions",
    )
    told.answers(Answer(chat_answer("refuse me")), Answer(chat_answer("The code is 4711.")))
    await guarded.run(polos, "The code?", session_id="guarded")
    assert texts((await polos.sessions.get_memory("guarded")).messages) == ["The code?", "The code is ****."]
    await guarded.run(polos, "Again?", session_id="guarded")
    assert texts(told.last.body["messages"]) == ["The code?", "The code is ****.", "Again?"]


class Verdict(BaseModel):
    good: bool


async def test_answers_that_were_mended_are_forgotten(polos: Polos, told: Recorder) -> None:
    judge = Agent(
        id="memory-judge",
        provider="openai",
        model="gpt-4o",
        output_schema=Verdict,
        provider_base_url=told.url,
        provider_llm_api="chat_completions",
    )
    told.answers(Answer(chat_answer("I think so")), Answer(chat_answer('{"good": true}')))
    assert (await judge.run(polos, "Good?", session_id="judge")).result == Verdict(good=True)
    assert texts((await polos.sessions.get_memory("judge")).messages) == ["Good?", '{"good": true}']


async def test_a_large_image_is_remembered_as_a_note(polos: Polos, told: Recorder) -> None:
    speaker = agent_of(told)
    data = "A" * 100_000
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{data}"}
    given = [{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}]
    await speaker.run(polos, given, session_id="image")
    assert data in str(told.last.body)
    await speaker.run(polos, "And now?", session_id="image")
    assert data not in str(told.last.body)
    assert "image/png of 75,000 bytes" in str(told.last.body["messages"][0])


# -- compaction


class Talker:
    """A model that answers long, and summarises what it is given."""

    def __init__(self, told: Recorder) -> None:
        self.summaries: list[Seen] = []
        self.answers = 0
        told.answer = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.body["messages"][0]["content"] == COMPACTION_PROMPT:
            self.summaries.append(seen)
            return Answer(chat_answer(f"summary {len(self.summaries)}"))
        self.answers += 1
        return Answer(chat_answer(f"answer {self.answers} " + "long " * 40))


def talker(told: Recorder, **values: Any) -> Agent:
    options: dict[str, Any] = {
        "id": "memory-talker",
        "provider": "openai",
        "model": "gpt-4o",
        "system_prompt": "You talk.",
        "tools": [weather],
        "provider_base_url": told.url,
        "provider_llm_api": "chat_completions",
        "compaction": CompactionConfig(max_conversation_tokens=200),
    }
    return Agent(**{**options, **values})


@on_both
async def test_a_long_conversation_is_folded_again_and_again(polos: Polos, told: Recorder) -> None:
    """Over several runs: user messages stay user messages, and there is one summary, of all before."""
    model, speaker = Talker(told), talker(told)
    results = [await speaker.run(polos, f"question {n}", session_id="long") for n in range(1, 9)]

    assert len(model.summaries) >= 2
    *_, last = [seen for seen in told.seen if seen not in model.summaries]
    messages = last.body["messages"]
    assert [m["role"] for m in messages[:3]] == ["system", "user", "assistant"]
    assert messages[1]["content"] == f"{SUMMARY_USER_PREFIX}summary {len(model.summaries)}"
    roles = [message["role"] for message in messages[1:]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert texts([message for message in messages[3:] if message["role"] == "user"])[-1] == "question 8"
    assert str(messages).count("summary ") == 1

    for number, summary in enumerate(model.summaries[1:], start=1):
        assert f"summary {number}" in summary.body["messages"][1]["content"]
        assert "tools" not in summary.body
        assert "You talk." not in str(summary.body)
    folded = "".join(summary.body["messages"][1]["content"] for summary in model.summaries)
    kept = "".join(texts(messages[3:]))
    assert [n for n in range(1, 9) if f"question {n}" not in folded + kept] == []
    assert any(result.usage.total_tokens == 36 for result in results)  # the summary is counted

    memory = await polos.sessions.get_memory("long")
    assert memory.summary == f"summary {len(model.summaries)}"
    assert memory.messages[0]["role"] == "user"


async def test_a_long_run_folds_its_own_tool_calls_and_keeps_its_question(
    polos: Polos, told: Recorder
) -> None:
    model, calls = Talker(told), 6

    def answer(seen: Seen) -> Answer:
        found = model.answer(seen)
        if model.summaries and seen is model.summaries[-1]:
            return found
        if model.answers > calls:
            return Answer(chat_answer("done"))
        call = call_of("e2e_weather", json.dumps({"city": f"city {model.answers} " + "x" * 200}))
        return Answer(chat_answer(calls=[{**call, "id": f"call_{model.answers}"}]))

    told.answer = answer
    speaker = talker(told, compaction=CompactionConfig(max_conversation_tokens=300), stop_conditions=[])
    result = await speaker.run(polos, "Look at all cities", session_id="many calls")
    assert result.stop_reason == "max_steps"
    assert model.summaries
    for seen in told.seen:
        open_calls: set[str] = set()
        for message in seen.body["messages"]:
            open_calls |= {call["id"] for call in message.get("tool_calls") or ()}
            if message["role"] == "tool":
                open_calls.remove(message["tool_call_id"])
        assert not open_calls
        if seen not in model.summaries:
            assert "Look at all cities" in str(seen.body["messages"])


async def test_without_a_summary_older_messages_are_left_out(polos: Polos, told: Recorder) -> None:
    speaker = talker(told, compaction={"max_conversation_tokens": 100, "min_recent_messages": 1})
    model = Talker(told)
    await speaker.run(polos, "question 1", session_id="none")
    await speaker.run(polos, "question 2", session_id="none")
    answer = model.answer

    def refuse(seen: Seen) -> Answer:
        is_summary = seen.body["messages"][0]["content"] == COMPACTION_PROMPT
        return Answer({}, status=400) if is_summary else answer(seen)

    told.answer = refuse
    await speaker.run(polos, "question 3", session_id="none")
    sent = texts(told.last.body["messages"])
    assert sent[0] == "You talk."
    assert sent[-1] == "question 3"
    assert "question 1" not in str(sent[2:])
    memory = await polos.sessions.get_memory("none")  # for the next run nothing is lost
    assert "question 2" in str(memory.messages)


async def test_a_conversation_that_the_provider_finds_too_long_is_folded(
    polos: Polos, told: Recorder
) -> None:
    speaker = talker(told, compaction=CompactionConfig(max_conversation_tokens=100_000))
    model = Talker(told)
    for number in range(1, 4):
        await speaker.run(polos, f"question {number}", session_id="window")
    answer = model.answer

    def short_window(seen: Seen) -> Answer:
        if len(seen.body["messages"]) > 6:
            error = {"message": "maximum context length is 100 tokens", "code": "context_length_exceeded"}
            return Answer({"error": {**error, "type": "invalid_request_error"}}, status=400)
        return answer(seen)

    told.answer = short_window
    result = await speaker.run(polos, "question 4", session_id="window")
    assert result.result.startswith("answer 4")
    assert texts(told.last.body["messages"])[-1] == "question 4"
    assert model.summaries


async def test_an_input_that_is_too_long_by_itself_fails_with_advice(polos: Polos, told: Recorder) -> None:
    error = {"message": "maximum context length is 100 tokens", "code": "context_length_exceeded"}
    told.answers(Answer({"error": {**error, "type": "invalid_request_error"}}, status=400))
    with pytest.raises(RunFailedError, match="compact"):
        await agent_of(told).run(polos, "too long", session_id="too long")


# -- by programs


async def test_programs_read_and_write_memories(polos: Polos, told: Recorder) -> None:
    call = {"type": "function_call", "name": "f", "call_id": "1", "arguments": "{}"}
    with pytest.raises(ValueError, match="without an output"):
        await put_session_memory("written", None, [call], agent_id="e2e-told", client=polos)
    messages = [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hello Ada."}]
    await put_session_memory("written", "Ada likes tea.", messages, agent_id="e2e-told", client=polos)
    memory = SessionMemory(summary="Ada likes tea.", messages=messages)
    assert await get_session_memory("written", client=polos) == memory

    await agent_of(told).run(polos, "Who am I?", session_id="written")
    sent = texts(told.last.body["messages"])
    assert sent[0] == f"{SUMMARY_USER_PREFIX}Ada likes tea."
    assert sent[2:] == ["I am Ada.", "Hello Ada.", "Who am I?"]

    assert await polos.sessions.delete_memory("written") == 1
    assert await polos.sessions.delete_memory("written") == 0
    assert await polos.sessions.get_memory("written") == SessionMemory()
