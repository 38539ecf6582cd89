"""The tree of errors is as drawn, and says what to do with each."""

from __future__ import annotations

import inspect
import re

import pytest

from polos import errors
from polos.errors import PolosError

LINE = re.compile(r"^(?P<rails>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<also>[\w, ]+)\))?(?:\s{2,}.+)?$")


def drawn() -> dict[str, set[str]]:
    """Return the bases of each class, as the docstring draws them."""
    bases: dict[str, set[str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        depth = len(found["rails"]) // 4
        above[depth:] = [found["name"]]
        parent = {above[depth - 1]} if depth else set()
        bases[found["name"]] = parent | set(re.split(r",\s*", found["also"] or "") if found["also"] else ())
    return bases


def defined() -> dict[str, type[BaseException]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }


def test_the_drawing_has_every_error_with_its_bases() -> None:
    real = {name: {base.__name__ for base in value.__bases__} for name, value in defined().items()}
    exceptions = {name: bases - {"Exception"} for name, bases in real.items()}

    assert drawn() == exceptions


@pytest.mark.parametrize("name", sorted(defined()))
def test_each_error_says_what_it_means(name: str) -> None:
    """The docstring is what a reader of a traceback looks up."""
    assert (defined()[name].__doc__ or "").strip()


def test_signals_pass_through_handlers_of_user_code() -> None:
    """``except Exception`` in a workflow cannot swallow a cancellation or a parked run."""
    signals = {name for name, value in defined().items() if not issubclass(value, Exception)}

    assert signals == {"ExecutionCancelledError", "WaitException"}


def test_only_what_is_away_may_be_tried_again() -> None:
    """Another attempt helps when a server did not answer, not when the caller is wrong."""
    retryable = {
        name for name, value in defined().items() if issubclass(value, PolosError) and value.retryable
    }

    assert retryable == {"ServiceUnavailableError", "JournalUnavailableError", "ServerUnavailableError"}
