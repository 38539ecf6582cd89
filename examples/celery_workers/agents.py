"""What the workers of this folder serve: a research agent with one tool."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool

LIBRARY = {
    "tides": "The pull of the moon, and less so of the sun, raises the tides twice a day.",
    "rainbows": "Sunlight is refracted and reflected inside drops of rain.",
}


class Topic(BaseModel):
    topic: str


@tool(description="Look a topic up in the library")
def look_up(ctx: WorkflowContext, input: Topic) -> str:
    return LIBRARY.get(input.topic.lower(), "nothing found")


research_agent = Agent(
    id="research-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="Look topics up in the library before you explain them, in one sentence.",
    tools=[look_up],
)
