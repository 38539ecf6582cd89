import asyncio

from polos import Agent, PolosClient

storyteller = Agent(
    id="storyteller",
    provider="openai",
    model="gpt-4o",
    system_prompt="You tell very short stories.",
)


async def main() -> None:
    async with PolosClient() as client:
        stream = await storyteller.stream(client, "A story about the sea, please.")
        async for piece in stream.text_chunks:
            print(piece, end="", flush=True)
        print(f"\n{(await stream.result()).usage.total_tokens} tokens, run {stream.id}")


if __name__ == "__main__":
    asyncio.run(main())
