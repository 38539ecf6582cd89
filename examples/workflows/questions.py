"""People in the loop: a run that asks, page after page, and holds no worker while it waits."""

import asyncio

from pydantic import BaseModel

from polos import Polos, WorkflowContext, events, workflow


class Application(BaseModel):
    name: str
    age: int
    approved_by: list[str]


PAGES = {"person": ["name", "age"], "contact": ["email", "phone"]}


@workflow(id="application")
async def application(ctx: WorkflowContext, payload: dict) -> Application:
    answers = {}
    for page, fields in PAGES.items():
        answer = await ctx.step.suspend(page, data={"title": page, "fields": fields}, timeout=86400)
        answers |= answer["data"]
    approved_by = []
    for reviewer in payload["reviewers"]:
        answer = await ctx.step.suspend(f"review by {reviewer}", data={"answers": answers})
        if answer["data"]["approved"]:
            approved_by.append(reviewer)
    return Application(name=answers["name"], age=answers["age"], approved_by=approved_by)


ANSWERS = {"name": "Ada", "age": 36, "email": "ada@example.com", "phone": "555-0100"}


def answer_to(question: dict) -> dict:
    """Stand in for the person."""
    if "fields" in question:
        return {field: ANSWERS[field] for field in question["fields"]}
    return {"approved": True}


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        handle = await application.invoke(polos, {"reviewers": ["bob", "carol"]})
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if (event.event_type or "").startswith("suspend_"):
                step = event.event_type.removeprefix("suspend_")
                print(f"asked: {step}")
                await polos.resume(
                    suspend_workflow_id=handle.root_workflow_id,
                    suspend_execution_id=handle.id,
                    suspend_step_key=step,
                    data=answer_to(event.data),
                )
        record = await polos.get_execution(handle.id)
        print(record["status"], record["result"])


if __name__ == "__main__":
    asyncio.run(main())
