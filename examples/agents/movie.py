import asyncio

from pydantic import BaseModel, Field

from polos import Agent, Polos


class Review(BaseModel):
    title: str
    rating: int = Field(ge=1, le=10, description="From 1, poor, to 10")
    pros: list[str]
    cons: list[str] = []


reviewer = Agent(
    id="movie-reviewer",
    provider="openai",
    model="gpt-4o",
    system_prompt="You review films.",
    output_schema=Review,
)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        answer = await reviewer.run(polos, "Review the film Alien.")
    review = answer.result
    print(f"{review.title}: {review.rating} of 10")
    print("for:", ", ".join(review.pros))
    print("against:", ", ".join(review.cons) or "nothing")


if __name__ == "__main__":
    asyncio.run(main())
