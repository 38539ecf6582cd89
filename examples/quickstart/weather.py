import asyncio

from pydantic import BaseModel

from polos import Agent, PolosClient, WorkflowContext, tool


class WeatherInput(BaseModel):
    city: str


class WeatherOutput(BaseModel):
    city: str
    temperature: float
    condition: str


@tool(description="Get the current weather of a city")
async def get_weather(ctx: WorkflowContext, input: WeatherInput) -> WeatherOutput:
    return WeatherOutput(city=input.city, temperature=21.5, condition="sunny")  # ask your weather service


weather_agent = Agent(
    id="weather-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You are a helpful weather assistant. Use get_weather to answer questions about weather.",
    tools=[get_weather],
)


async def main() -> None:
    async with PolosClient() as client:
        response = await weather_agent.run(client, "Compare the weather in New York and London.")
    print(response.result)
    print(f"{response.total_steps} turns, {response.usage.total_tokens} tokens")


if __name__ == "__main__":
    asyncio.run(main())
