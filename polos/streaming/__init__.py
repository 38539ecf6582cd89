"""Redis pub/sub: nudges between workers, notices to whoever waits for a run. Only latency rests on it."""
