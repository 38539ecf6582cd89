"""What a forked child must make anew: locks that another thread held, connections its parent still uses."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forgetful(Protocol):
    """An object of a process that may fork."""

    def forget(self) -> None:
        """Drop, without closing, what belongs to the parent; called in the child, before anything else."""


_known: weakref.WeakSet[Forgetful] = weakref.WeakSet()  # of this process: a fork tells nobody else


def tell_of_forks(it: Forgetful) -> None:
    """Have `it` forget what belongs to its parent in every child that is forked from now on."""
    _known.add(it)


def _forget_all() -> None:
    for it in list(_known):
        it.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_all)
