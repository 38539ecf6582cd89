"""F36: random programs under mixed faults."""
