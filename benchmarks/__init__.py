"""How fast polos is, each figure beside its floor: the same work and promise in the thinnest code."""
