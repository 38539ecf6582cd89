"""Redis pub/sub: nudges between workers and notices to whoever waits for a run. Nothing rests on it but latency."""
