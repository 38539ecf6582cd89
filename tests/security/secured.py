"""What the worker of these tests offers. Each thing that is done leaves a line in the ledger."""

import asyncio
import logging
import os
from pathlib import Path

from polos import Agent, WorkflowContext, workflow

agent = Agent(id="clerk", provider="openai", model="gpt-4o", system_prompt="Answer.")


def note(word: str) -> str:
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(word + "\n")
    return word


@workflow
async def pay(ctx: WorkflowContext, payload: dict[str, str]) -> str:
    await ctx.step.run("pay", note, f"paid {payload['to']}")
    if "gate" in payload:
        while not os.path.exists(payload["gate"]):  # noqa: ASYNC240 - a gate of the tests
            await asyncio.sleep(0.02)
    return payload["to"]


@workflow
async def asks(ctx: WorkflowContext, payload: dict[str, str]) -> str:
    answer = await ctx.step.suspend("question", data={"_form": {"title": "Well?"}})
    await ctx.step.run("note", note, f"answered {payload['name']}")
    return str(answer["data"])


def fail(text: str) -> None:
    raise ValueError(text)


@workflow
async def raises(ctx: WorkflowContext, payload: dict[str, str]) -> None:
    text = payload["text"]
    if payload["place"] == "logged":
        try:
            fail(text)
        except ValueError:
            logging.getLogger("the.program").exception("it failed with %s", text)
    elif payload["place"] == "step":
        await ctx.step.run("fails", fail, text, max_retries=0)
    else:
        fail(text)
