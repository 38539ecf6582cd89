import asyncio

from pydantic import BaseModel

from polos import Agent, Polos, WorkflowContext, tool


class Sum(BaseModel):
    a: float
    b: float = 0


@tool(description="Add two numbers")
async def add(ctx: WorkflowContext, input: Sum) -> float:
    return input.a + input.b


assistant = Agent(
    id="chat-assistant",
    provider="openai",
    model="gpt-4o",
    system_prompt="You are a friendly assistant. Remember what the user tells you.",
    tools=[add],
)


async def answer(polos: Polos, text: str) -> None:
    stream = await assistant.stream(polos, text, session_id="chat-of-ada")
    async for event in stream.events:
        if event.event_type == "tool_call":
            print(f"[Using {event.data['tool_call']['function']['name']}...]")
        elif event.event_type == "text_delta":
            print(event.data["content"], end="", flush=True)
    print()


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        while True:
            try:
                text = input("You: ")  # noqa: ASYNC250 - the worker is in a thread of its own
            except EOFError:
                break
            if text.strip() == "quit":
                break
            try:
                await answer(polos, text)
            except RuntimeError as error:
                print(f"Error: {error}")


if __name__ == "__main__":
    asyncio.run(main())
