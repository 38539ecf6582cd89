"""What the workers serve: an agent that knows the weather."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool

WEATHER = {"lisbon": (24.0, "sunny"), "bergen": (9.5, "rain"), "cairo": (34.0, "clear")}


class City(BaseModel):
    city: str


class Weather(BaseModel):
    city: str
    celsius: float
    condition: str


@tool(description="Get the current weather of a city")
async def get_weather(ctx: WorkflowContext, input: City) -> Weather:
    celsius, condition = WEATHER.get(input.city.lower(), (18.0, "cloudy"))  # ask your weather service
    return Weather(city=input.city, celsius=celsius, condition=condition)


travel_agent = Agent(
    id="travel-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You help people to choose where to travel. Look up the weather before you name a city.",
    tools=[get_weather],
)
