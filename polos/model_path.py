"""Which way model calls go out: the variable POLOS_MODEL_PATH."""

from __future__ import annotations

import os

VARIABLE = "POLOS_MODEL_PATH"
AUTO, LEAN, LITELLM = "auto", "lean", "litellm"


def model_path(text: str) -> str:
    """Return `text` if it names a way.

    Raises:
        ValueError: It does not.
    """
    if text not in (AUTO, LEAN, LITELLM):
        raise ValueError(f"use one of {AUTO}, {LEAN}, {LITELLM}")
    return text


def chosen_model_path() -> str:
    """Return the way the environment names, by default the leanest that knows a call.

    Read where it is used, as keys and base URLs of providers are; `Settings` has checked it at the start.

    Raises:
        ValueError: It names none.
    """
    return model_path(os.environ.get(VARIABLE, "").strip() or AUTO)
