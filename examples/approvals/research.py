"""An agent that searches the web once you have approved each query, and asks you what it cannot know."""

import asyncio
import json
import os
from typing import Any

from dotenv import load_dotenv

from polos import (
    Agent,
    Polos,
    StreamEvent,
    WebSearchToolConfig,
    create_ask_user_tool,
    create_web_search_tool,
)

load_dotenv()

web_search = create_web_search_tool(
    WebSearchToolConfig(
        max_results=5,
        approval="always",
        base_url=os.environ.get("TAVILY_BASE_URL", "https://api.tavily.com"),
    )
)

researcher = Agent(
    id="researcher",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You research questions on the web. Ask the user what is unclear, and cite URLs.",
    tools=[web_search, create_ask_user_tool()],
)


async def ask(prompt: str) -> str:
    return (await asyncio.to_thread(input, prompt)).strip()


async def answer_of(question: dict[str, Any]) -> dict[str, Any]:
    """Show a question in the terminal, and return what is typed."""
    form = question["_form"]
    print(f"\n{form['title']}")
    if question["_source"] == "tool_approval":
        print(json.dumps(form["context"]["input"], indent=2))
        if (await ask("Approve? [y/n] ")).lower() in ("y", "yes"):
            return {"approved": True}
        return {"approved": False, "feedback": await ask("Why not? ")}
    print(form["description"])
    return {field["key"]: await ask(f"{field['label']}: ") for field in form["fields"]}


async def answer(polos: Polos, run_id: str, event: StreamEvent) -> None:
    key = event.event_type.removeprefix("suspend_")
    await polos.resume(researcher.id, run_id, key, await answer_of(event.data))


async def main() -> None:
    text = await ask("What do you want to know? ")
    async with Polos() as polos:
        handle = await researcher.invoke(polos, {"input": text})
        async for event in polos.follow(handle.id):
            if event.event_type.startswith("suspend_"):
                await answer(polos, handle.id, event)
        record = await polos.wait(handle.id)
    print(f"\n{record['result']['result']}")


if __name__ == "__main__":
    asyncio.run(main())
