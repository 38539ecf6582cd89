"""Forks of this process: what must be at rest before one, and what the child must make anew."""

from __future__ import annotations

import os
import threading
import weakref


class Forked:
    """What is told of forks from `watch_forks` on, while it lives. A fork waits for `before_fork`."""

    def watch_forks(self) -> None:
        """Have this object told of every fork from now on."""
        _known.add(self)

    def before_fork(self) -> None:
        """Come to rest; called in the thread that forks."""

    def after_fork(self) -> None:
        """Go on, in the parent."""

    def forget(self) -> None:
        """Begin anew, in the child: nothing of the parent may be closed, and its threads are not there."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()  # of this process, as forks are
_at_rest = threading.local()


def _before() -> None:
    _at_rest.known = []
    for it in list(_known):
        it.before_fork()
        _at_rest.known.append(it)


def _in_parent() -> None:
    for it in _at_rest.known:
        it.after_fork()
    del _at_rest.known


def _in_child() -> None:
    for it in _at_rest.known:
        it.forget()
    del _at_rest.known


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
