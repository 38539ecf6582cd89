import asyncio
import sys

from polos import Agent, MCPServer, PolosClient

notes = MCPServer(
    "notes",
    command=[sys.executable, "notes_server.py"],
    approval={"remove_all": "always"},  # a person is asked before this one
)

assistant = Agent(
    id="assistant",
    provider="openai",
    model="gpt-4o",
    system_prompt="You keep the user's notes.",
    tools=[notes],
)


async def main() -> None:
    async with PolosClient() as client:
        response = await assistant.run(client, "Note that the milk is empty, then read me my notes.")
    for called in response.tool_results:
        print(f"{called.tool_name}: {called.result}")
    print(response.result)


if __name__ == "__main__":
    asyncio.run(main())
