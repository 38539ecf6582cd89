"""Names of steps in the journal: those of users as they are, the engine's own apart from them."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from polos import serialization

MAX_NAME_CHARACTERS = 400  # of a user's step: an index of PostgreSQL holds no more than some 2700 bytes
INTERNAL = "$"  # begins the names of the engine's own steps; a user's key that begins so gets another one


def internal(name: str) -> str:
    """Return the journal's name for a step of the engine's own."""
    return INTERNAL + name


def user_key(key: str) -> str:
    """Return the journal's name for a user's step key: any string, apart from the engine's names."""
    name = key if serialization.is_storable(key) else "%" + quote(key, errors="surrogatepass")
    if name != key or key.startswith(INTERNAL):
        name = INTERNAL + name
    if len(name) > MAX_NAME_CHARACTERS:
        name = f"{INTERNAL}{name[:MAX_NAME_CHARACTERS]}…{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def shown(name: str) -> str:
    """Return a journal name as people see it."""
    return name[len(INTERNAL) :] if name.startswith(INTERNAL) else name
