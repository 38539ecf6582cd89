"""Streamed answers: read as they come, and put together again as the provider would have sent them whole."""
