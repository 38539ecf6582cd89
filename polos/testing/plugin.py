"""The pytest plugin. What its fixtures need is loaded by who uses them: other projects pay nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from polos.client import PolosClient
    from polos.testing.clock import MovableClock
    from polos.testing.model import ScriptedModel

INI = "polos_model_requests"
FORBID, LOCAL, ALLOW = "forbid", "local", "allow"
_RULE = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what a project may say of requests to models."""
    parser.addini(
        INI,
        "Requests to models in all tests: 'forbid', 'local' (to servers of this machine only) or 'allow'. "
        "Without it, only tests that use the fixture polos_client are kept from making any.",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Obey it in all tests."""
    said = _said(config)
    if said in {FORBID, LOCAL}:
        from polos.testing.guard import forbid_model_requests  # noqa: PLC0415 - loaded only by who asks for it

        config.stash[_RULE] = forbid_model_requests(allow_local=said == LOCAL)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the process as it was."""
    if (rule := config.stash.get(_RULE, None)) is not None:
        rule.end()


def _said(config: pytest.Config) -> str:
    said = str(config.getini(INI)).strip().lower()
    if said not in {"", FORBID, LOCAL, ALLOW}:
        raise pytest.UsageError(f"{INI} = {said!r} cannot be used: write 'forbid', 'local' or 'allow'")
    return said


@pytest.fixture
def no_model_requests(request: pytest.FixtureRequest) -> Iterator[None]:
    """No request to a model in this test, unless the project's settings allow them."""
    said = _said(request.config)
    if said == ALLOW:
        yield
        return
    from polos.testing.guard import forbid_model_requests  # noqa: PLC0415 - as above

    with forbid_model_requests(allow_local=said == LOCAL):
        yield


@pytest.fixture
def polos_clock() -> MovableClock:
    """The clock of `polos_client`: ``await polos_clock.advance(hours=3)``."""
    from polos.testing.clock import MovableClock  # noqa: PLC0415 - as above

    return MovableClock()


@pytest.fixture
def scripted_model() -> ScriptedModel:
    """The model of all agents of `polos_client`; ``scripted_model.add(...)`` gives it answers."""
    from polos.testing.model import ScriptedModel  # noqa: PLC0415 - as above

    return ScriptedModel([])


@pytest.fixture
def polos_settings() -> Mapping[str, Any]:
    """Settings of `polos_client` that differ from the defaults, by their names; for projects to override."""
    return {}


@pytest.fixture
def polos_client(
    no_model_requests: None,
    scripted_model: ScriptedModel,
    polos_clock: MovableClock,
    polos_settings: Mapping[str, Any],
) -> Iterator[PolosClient]:
    """A client of a runtime in memory, for async tests of any plugin and, by its sync forms, for others."""
    from polos.testing.memory_runtime import runtime  # noqa: PLC0415 - as above

    memory = runtime(scripted_model, clock=polos_clock, **polos_settings)
    yield memory.open()
    memory.close()
