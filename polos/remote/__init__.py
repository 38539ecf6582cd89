"""The way of a client elsewhere: HTTP to a `polos server`."""
