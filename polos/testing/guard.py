"""Tests and real models: forbidding requests, and allowing them again."""

from __future__ import annotations

from polos.models.permission import Rule


def forbid_model_requests(*, allow_local: bool = False) -> Rule:
    """Forbid requests to models in this process from now on, or within a ``with`` block.

    A run that would make one fails with an error that says so. Workers in other processes do as they like.

    Args:
        allow_local: Allow those to servers of this machine, such as a mock of a provider.

    Returns:
        What ends it: by `end()`, or as a context manager.
    """
    return Rule(anywhere=False, local=allow_local)


def allow_model_requests(*, local_only: bool = False) -> Rule:
    """Allow requests to models where they were forbidden, from now on or within a ``with`` block.

    Args:
        local_only: Allow only those to servers of this machine.
    """
    return Rule(anywhere=not local_only, local=True)
