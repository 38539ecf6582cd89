"""Fan out and in: children that start together and are waited for together."""

import asyncio

from pydantic import BaseModel

from polos import BatchWorkflowInput, Polos, WorkflowContext, workflow


class Paper(BaseModel):
    title: str
    reviewer: str


class Review(BaseModel):
    reviewer: str
    score: int


@workflow
async def review(ctx: WorkflowContext, payload: Paper) -> Review:
    score = await ctx.step.run("score", lambda: 5 + len(payload.reviewer))
    return Review(reviewer=payload.reviewer, score=score)


@workflow
async def review_paper(ctx: WorkflowContext, payload: dict) -> dict:
    papers = [Paper(title=payload["title"], reviewer=name) for name in payload["reviewers"]]
    items = await ctx.step.batch_invoke_and_wait(
        "reviews", [BatchWorkflowInput(id="review", payload=paper) for paper in papers]
    )
    reviews = [item.result for item in items if item.success]
    return {
        "reviewers": [one.reviewer for one in reviews],
        "average": sum(one.score for one in reviews) / len(reviews),
    }


@workflow
async def start_many(ctx: WorkflowContext) -> int:
    handles = await ctx.step.batch_invoke(
        "start",
        [BatchWorkflowInput(id="review", payload=Paper(title="x", reviewer=str(n))) for n in range(5)],
    )
    return len({handle.id for handle in handles})


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        print(await review_paper.run(polos, {"title": "Engines", "reviewers": ["Ada", "Grace", "Edsger"]}))
        print(f"{await start_many.run(polos)} runs started")


if __name__ == "__main__":
    asyncio.run(main())
