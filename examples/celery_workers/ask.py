"""Starts two runs for the workers and prints their answers. A web application does the same."""

import asyncio

from agents import research_agent

from polos import PolosClient

TOPICS = ("tides", "rainbows")


async def main() -> None:
    async with PolosClient() as client:
        questions = [f"Why are there {topic}?" for topic in TOPICS]
        answers = await asyncio.gather(*(research_agent.run(client, question) for question in questions))
    for topic, answer in zip(TOPICS, answers, strict=True):
        print(f"{topic}: {answer.result}")


if __name__ == "__main__":
    asyncio.run(main())
