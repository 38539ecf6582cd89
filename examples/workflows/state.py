"""State of a run: typed, from defaults or from what the caller gives, kept in the run's record."""

import asyncio

from pydantic import Field

from polos import Polos, WorkflowContext, WorkflowState, workflow


class Counter(WorkflowState):
    count: int = 0
    history: list[str] = Field(default_factory=list)


@workflow(state_schema=Counter)
async def count_up(ctx: WorkflowContext, payload: dict) -> int:
    for place, amount in enumerate(payload["amounts"]):
        ctx.state.count += await ctx.step.run(f"amount {place}", lambda amount=amount: amount)
        ctx.state.history.append(f"+{amount}")
    return ctx.state.count


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        print("from 0:", await count_up.run(polos, {"amounts": [1, 4]}))
        print("from 100:", await count_up.run(polos, {"amounts": [1, 4]}, initial_state=Counter(count=100)))
        handle = await count_up.invoke(polos, {"amounts": [2]})
        await polos.wait(handle.id)
        print("kept:", (await polos.get_execution(handle.id))["final_state"])


if __name__ == "__main__":
    asyncio.run(main())
