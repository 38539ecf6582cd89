"""What the worker of these tests offers. Each thing that is done leaves a line in the ledger."""

import asyncio
import logging
import os
from pathlib import Path

from polos import Agent, EnvironmentVariable, MCPServer, WorkflowContext, workflow

agent = Agent(id="clerk", provider="openai", model="gpt-4o", system_prompt="Answer.")
ELSEWHERE = os.environ.get("ELSEWHERE", "http://127.0.0.1:9")  # a server that tells all it is sent
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "groq": "llama-3.3-70b-versatile"}
keyed = {
    name: Agent(id=f"keyed-{name}", provider=name, model=model, provider_base_url=ELSEWHERE)
    for name, model in MODELS.items()
}
SERVERS = {
    "header": MCPServer("header", url=f"{ELSEWHERE}/mcp", headers={"Authorization": "Bearer ${MCP_TOKEN}"}),
    "own": MCPServer("own", url=f"{ELSEWHERE}/mcp", headers={"X-Own": EnvironmentVariable("MCP_TOKEN")}),
    "url": MCPServer("url", url=f"{ELSEWHERE}/mcp/${{MCP_TOKEN}}/x"),
    "env": MCPServer(
        "env",
        command=["/bin/sh", "-c", 'echo "no such token: $TOKEN" >&2; echo "$TOKEN"; exit 3'],
        env={"TOKEN": EnvironmentVariable("MCP_TOKEN")},
    ),
    "command": MCPServer("command", command=["/nowhere/${MCP_TOKEN}", "--token", "${MCP_TOKEN}"]),
}
served = {
    name: Agent(id=f"served-{name}", provider="openai", model="gpt-4o", tools=[server])
    for name, server in SERVERS.items()
}


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
