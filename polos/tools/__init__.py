"""Workflows a model may call."""
