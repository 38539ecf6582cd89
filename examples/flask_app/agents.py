"""What the workers serve: an agent that explains words, and looks them up first."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool

GLOSSARY = {
    "doorbell": "A message that says: look at this run. It may be lost, doubled or late.",
    "turn": "One call of a model by an agent.",
}


class Word(BaseModel):
    word: str


@tool(description="Look a word up in the glossary of the company")
def look_up(ctx: WorkflowContext, input: Word) -> str:
    return GLOSSARY.get(input.word.lower(), "not in the glossary")


glossary_agent = Agent(
    id="glossary-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="Look words up in the glossary before you explain them, in two sentences.",
    tools=[look_up],
)
