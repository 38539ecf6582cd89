"""Workflows that talk to a model."""
