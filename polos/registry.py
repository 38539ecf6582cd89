"""Every definition of this process by id, where each was written, and what an id may be."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from polos.serialization import is_storable

if TYPE_CHECKING:
    from polos.workflows import Workflow

logger = logging.getLogger(__name__)

WorkflowT = TypeVar("WorkflowT", bound="Workflow")

MAX_ID_CHARACTERS = 255

_PACKAGE = str(Path(__file__).parent) + os.sep
_definitions: dict[str, Workflow] = {}


def register(definition: WorkflowT) -> WorkflowT:
    """Make `definition` the one found under its id, and return it.

    The last definition of an id wins. Taking an id over from another kind of definition, or from another
    file, is logged; defining again in the same file, as a reload does, is not.
    """
    previous = _definitions.get(definition.id)
    if previous is not None and _collide(previous, definition):
        logger.warning(
            "id %r: the %s defined at %s replaces the %s defined at %s; give one of them another id",
            definition.id,
            definition.workflow_type,
            definition.defined_at,
            previous.workflow_type,
            previous.defined_at,
        )
    _definitions[definition.id] = definition
    return definition


def _collide(previous: Workflow, definition: Workflow) -> bool:
    if previous.workflow_type != definition.workflow_type:
        return True
    return _file(previous) != _file(definition) and not _same_code(previous, definition)


def _file(definition: Workflow) -> str:
    return definition.defined_at.rpartition(":")[0]


def _same_code(previous: Workflow, definition: Workflow) -> bool:
    """Return whether both are tools from one factory, such as two sandboxes' ``read``."""
    if definition.workflow_type != "tool":
        return False
    code = getattr(definition.func, "__code__", None)
    return code is not None and code is getattr(previous.func, "__code__", None)


def get_workflow(id: str) -> Workflow | None:
    """Return the workflow, agent or tool with this id, or None."""
    found = _definitions.get(id)
    if found is None and (family := _definitions.get(family_id(id))) is not None:
        return family.member(id)
    return found


def family_id(id: str) -> str:
    """Return the id of the family that tool `id` would belong to: ``files.*`` for ``files.read``."""
    return f"{id.partition('.')[0]}.*"


def get_all_workflows() -> dict[str, Workflow]:
    """Return a copy of the registry: every workflow, agent and tool by id."""
    return dict(_definitions)


def defined_at() -> str:
    """Return ``file:line`` of the caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<frozen ")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def id_or_name(id: object, func: Callable[..., Any]) -> str:
    """Return the id given to a decorator, else the name of the function.

    Raises:
        ValueError: The id is not a string, or empty.
    """
    return checked_id(func.__name__ if id is None else id)


def is_id(text: str) -> bool:
    """Return whether `text` is short enough for an id, and can be stored."""
    return len(text) <= MAX_ID_CHARACTERS and is_storable(text)


def checked_id(id: object) -> str:
    """Return `id`, or raise ValueError when it is not a string, empty, too long or not storable."""
    if not isinstance(id, str) or not id.strip():
        raise ValueError(f"id {id!r} cannot be used: give a non-empty string")
    if not is_id(id):
        raise ValueError(
            f"id {id[:80]!r} cannot be used: give at most {MAX_ID_CHARACTERS} characters, none of them NUL"
        )
    return id
