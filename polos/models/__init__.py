"""Calling models: what a request and an answer look like, and the one door to LiteLLM."""
