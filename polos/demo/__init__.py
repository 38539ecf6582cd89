"""What `polos demo` shows: an agent whose worker is killed in the middle, and the proof that nothing is done twice."""
