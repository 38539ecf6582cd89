import asyncio

from pydantic import BaseModel

from polos import Agent, HookContext, HookResult, Polos, WorkflowContext, hook, tool


class Query(BaseModel):
    query: str


@tool(description="Search the catalogue")
async def search(ctx: WorkflowContext, input: Query) -> dict:
    return {"found": [f"{input.query} 1", f"{input.query} 2"]}


@hook
def started(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    print(f"Agent started: {seen.current_payload['prompt']}")
    return HookResult.continue_with()


@hook
def step_started(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    print(f"[Step {seen.current_payload['step']}] model call")
    return HookResult.continue_with()


@hook
def tool_started(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    print(f"[Tool] {seen.current_tool} {seen.current_payload}")
    return HookResult.continue_with(modified_payload={"query": seen.current_payload["query"].lower()})


@hook
def tool_ended(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    print(f"[Tool] {seen.current_tool} returned {seen.current_output}")
    return HookResult.continue_with()


@hook
def ended(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    result = seen.current_output
    print(f"Agent completed: {result.total_steps} steps, {result.usage.total_tokens} tokens")
    return HookResult.continue_with()


agent = Agent(
    id="hooked-agent",
    provider="openai",
    model="gpt-4o",
    tools=[search],
    on_start=started,
    on_end=ended,
    on_agent_step_start=step_started,
    on_tool_start=tool_started,
    on_tool_end=tool_ended,
)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        answer = await agent.run(polos, "What lamps have you got?")
    print(answer.result)


if __name__ == "__main__":
    asyncio.run(main())
