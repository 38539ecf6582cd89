import asyncio
import sys

from pydantic import BaseModel

from polos import Agent, Polos, UsageLimits, WorkflowContext, tool
from polos.errors import RunFailedError


class Query(BaseModel):
    query: str


@tool(description="Search the library")
async def search(ctx: WorkflowContext, input: Query) -> str:
    return f"Nothing on {input.query}; try other words."


researcher = Agent(
    id="researcher",
    provider="openai",
    model="gpt-4o",
    system_prompt="Search until you have found something.",
    tools=[search],
    usage_limits=UsageLimits(max_cost=0.50),
)


async def main(dollars: float) -> None:
    async with Polos(log_file="polos.log") as polos:
        try:
            limits = UsageLimits(max_cost=dollars, max_requests=9)
            found = await researcher.run(polos, "What do owls read?", usage_limits=limits)
            print(found.result)
        except RunFailedError as error:
            print(error)
        for row in (await polos.usage("model")).rows:
            print(f"{row.of}: {row.calls} calls, {row.total_tokens} tokens, ${row.cost or 0:.6f}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0005))
