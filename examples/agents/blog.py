import asyncio

from pydantic import BaseModel

from polos import Agent, AgentResult, Polos, WorkflowContext, events, workflow


class Topic(BaseModel):
    topic: str


writer = Agent(id="blog-writer", provider="openai", model="gpt-4o", system_prompt="You write posts.")
reviewers = [
    Agent(id=f"{view}-reviewer", provider="openai", model="gpt-4o", system_prompt=f"You review for {view}.")
    for view in ("facts", "style", "grammar")
]
editor = Agent(id="blog-editor", provider="openai", model="gpt-4o", system_prompt="You edit posts.")


@workflow
async def write_blog(ctx: WorkflowContext, payload: Topic) -> str:
    draft = await ctx.step.agent_invoke_and_wait("draft", writer.with_input(f"A post on {payload.topic}"))
    reviews = await ctx.step.batch_agent_invoke_and_wait(
        "reviews", [reviewer.with_input(f"Review: {draft.result}") for reviewer in reviewers]
    )
    notes = "\n".join(AgentResult.model_validate(review.result).result for review in reviews)
    final = await ctx.step.agent_invoke_and_wait(
        "edit", editor.with_input(f"Edit: {draft.result}\nReviews:\n{notes}")
    )
    return final.result


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        handle = await write_blog.invoke(polos, Topic(topic="tides"))
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if event.event_type in ("agent_finish", "workflow_finish"):
                print(f"[{event.event_type}] {event.data['_metadata']['workflow_id']}")
        print((await handle.get(polos))["result"])


if __name__ == "__main__":
    asyncio.run(main())
