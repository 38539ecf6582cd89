"""What makes runs durable: the coordinator, the checkpoint primitive, steps, children, and their recovery."""
