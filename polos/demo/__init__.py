"""What `polos demo` shows: an agent whose worker is killed, and the proof that nothing is done twice."""
