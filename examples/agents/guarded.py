import asyncio
import re

from polos import Agent, GuardrailContext, GuardrailResult, Polos, WorkflowContext, guardrail

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.\w+)+")


@guardrail
def hide_addresses(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    return GuardrailResult.continue_with(modified_content=ADDRESS.sub("[EMAIL REDACTED]", seen.content or ""))


@guardrail
def no_promises(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    if "guarantee" in (seen.content or ""):
        return GuardrailResult.fail("do not guarantee anything")
    return GuardrailResult.continue_with()


support = Agent(
    id="guarded-support",
    provider="openai",
    model="gpt-4o",
    guardrails=[hide_addresses, no_promises, "The answer must not contain legal advice."],
)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        stream = await support.stream(polos, "Will you refund me, and whom do I write to?")
        async for piece in stream.text_chunks:
            print(piece)


if __name__ == "__main__":
    asyncio.run(main())
