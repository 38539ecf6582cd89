"""What the demo asks, of which agent and model; the agent itself is defined elsewhere, which registers it."""

LEDGER_VARIABLE = "POLOS_DEMO_LEDGER"
MODEL_VARIABLE = "POLOS_DEMO_MODEL"
DEFAULT_MODEL = "gpt-4o-mini"

AGENT_ID = "weather-agent"
FIRST_CITIES = ("Oslo", "Paris", "Lagos", "Lima", "Tokyo", "Cairo")
MORE_CITIES = ("Nairobi", "Reykjavik")
QUESTION = (
    f"What is the weather in {', '.join(FIRST_CITIES)}? Call get_weather for all of them in parallel. "
    f"When you have these, do the same for {' and '.join(MORE_CITIES)}. "
    "Then say in two sentences where it is warmest and where it is coldest."
)
