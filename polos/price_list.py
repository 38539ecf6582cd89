"""A user's own prices of models: the file `POLOS_MODEL_PRICES` names."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

VARIABLE = "POLOS_MODEL_PRICES"
_NEEDED = ("input_cost_per_token", "output_cost_per_token")

PriceRow = dict[str, Any]


def own_prices() -> dict[str, PriceRow]:
    """Return the rows of the file the environment names; none if it names none.

    Read where it is used, as keys and base URLs of providers are; `Settings` has checked it at the start.

    Raises:
        ValueError: The file has become unusable since.
    """
    path = os.environ.get(VARIABLE, "").strip()
    return read_price_list(Path(path)) if path else {}


def has_price_list() -> bool:
    """Whether the environment names one."""
    return bool(os.environ.get(VARIABLE, "").strip())


def price_list_path(text: str) -> Path:
    """Return the path `text` names, once the file there was read and found usable.

    Raises:
        ValueError: It cannot be read, or does not hold prices; says where and what to write instead.
    """
    path = Path(text)
    read_price_list(path)
    return path


def read_price_list(path: Path) -> dict[str, PriceRow]:
    """Return the rows of the file at `path` by model; read again only when it has changed.

    A row has the fields of LiteLLM's price table, in US dollars per token: ``input_cost_per_token`` and
    ``output_cost_per_token``, and whichever others apply, such as ``cache_read_input_token_cost``.

    Raises:
        ValueError: It cannot be read, or does not hold prices.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error


@lru_cache(maxsize=1)
def _read(path: Path, _: int) -> dict[str, PriceRow]:
    try:
        rows = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"the file is not JSON ({error})") from error
    if not isinstance(rows, dict):
        raise ValueError('the file must hold one object: {"provider/model": {"input_cost_per_token": …}}')
    for model, row in rows.items():
        _check_row(model, row)
    return rows


def _check_row(model: str, row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{model!r} must have an object with {' and '.join(_NEEDED)}")
    for name in _NEEDED:
        if name not in row:
            raise ValueError(f"{model!r} lacks {name}, in US dollars per token")
    for name, value in row.items():
        if "cost" in name and not _is_price(value):
            raise ValueError(f"{name} of {model!r} must be a number of 0 or more, not {value!r}")


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
