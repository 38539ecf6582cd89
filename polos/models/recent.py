"""A mapping that is bounded: what was used longest ago is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps up to `limit` values; one that is forgotten is made, or learned, again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __getitem__(self, key: K) -> V:
        self._values.move_to_end(key)
        return self._values[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def get(self, key: K, default: V) -> V:
        """Return the value of `key`, or the default."""
        return self[key] if key in self._values else default

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of `key`, made if there is none."""
        if key not in self:
            self[key] = make()
        return self[key]
