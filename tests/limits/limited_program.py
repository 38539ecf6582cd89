"""What the workers of these tests serve."""

import os

from polos import Agent

limited = Agent(id="limited", provider="groq", model="m", provider_base_url=os.environ["MODEL_URL"])
