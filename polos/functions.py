"""The functions users decorate: what they take, and how they are called."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin, is_typeddict

from pydantic import BaseModel

if sys.version_info >= (3, 14):
    from annotationlib import Format

UserFunction = Callable[..., Any]

_UNIONS = (Union, types.UnionType)
_CONTEXT_NAMES = ("WorkflowContext", "AgentContext")


def signature_of(func: UserFunction) -> inspect.Signature:
    """Return the signature of `func`; annotations that name things not yet defined stay as they are."""
    if sys.version_info >= (3, 14):
        return inspect.signature(func, annotation_format=Format.FORWARDREF)
    return inspect.signature(func)


def positional_parameters(func: UserFunction, *, most: int, what: str) -> list[inspect.Parameter]:
    """Return the one to `most` positional parameters of `func`, which error messages call `what`.

    Raises:
        TypeError: It takes more or fewer, ``*args``, ``**kwargs``, or requires a keyword-only argument.
    """
    if not callable(func):
        raise TypeError(f"{what} must be a function, not {func!r}")
    if inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func):
        raise TypeError(f"{what} must not yield: return one result")
    parameters = list(signature_of(func).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    optional = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    if len(positional) + len(optional) != len(parameters) or not 1 <= len(positional) <= most:
        names = "(ctx)" if most == 1 else "(ctx) or (ctx, payload)"
        raise TypeError(f"{what} must take {names}, not {_listed(parameters)}")
    return positional


def _listed(parameters: list[inspect.Parameter]) -> str:
    return f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})"


def resolved(func: UserFunction, annotation: Any) -> Any:
    """Return `annotation` with its names looked up where `func` was written; its text if that fails."""
    for _ in range(3):  # "'Model'": quoted in a module whose annotations are text already
        if isinstance(annotation, ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            break
        annotation = _looked_up(func, annotation)
    alternatives = members(annotation)
    if len(alternatives) > 1 and is_unresolved(annotation):
        return operator.getitem(Union, tuple(resolved(func, one) for one in alternatives))
    return annotation


def _looked_up(func: UserFunction, text: str) -> Any:
    inner = _innermost(func)
    try:
        return eval(  # noqa: S307 - the program's own annotations, as `typing.get_type_hints` does
            text, getattr(inner, "__globals__", {}), {**_enclosing_locals(inner), **dict(_closure(inner))}
        )
    except Exception:  # noqa: BLE001 - an annotation is any expression, and may name what does not exist (yet)
        return text


def _innermost(func: UserFunction) -> Any:
    inner: Any = inspect.unwrap(func)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    return getattr(inner, "__func__", inner)


def _closure(func: Any) -> Iterator[tuple[str, Any]]:
    code, cells = getattr(func, "__code__", None), getattr(func, "__closure__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the enclosing function has not assigned it yet
            continue


def _enclosing_locals(func: Any) -> dict[str, Any]:
    """Return the variables of the function that is just now defining `func`, if it is inside one."""
    outer = getattr(func, "__qualname__", "").rpartition(".<locals>.")[0].rpartition(".")[2]
    frame = sys._getframe(1) if outer else None
    while frame is not None:
        if frame.f_code.co_name == outer and frame.f_globals is func.__globals__:
            return frame.f_locals
        frame = frame.f_back
    return {}


def is_unresolved(annotation: Any) -> bool:
    """Return whether `annotation`, or an alternative of it, is still only text."""
    return any(isinstance(member, str | ForwardRef) for member in members(annotation))


def is_model(annotation: Any) -> bool:
    """Return whether `annotation` is a Pydantic model class."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the annotation alone; ``Annotated`` is looked through."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    return get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return every model class that `annotation` mentions, at any depth."""
    if is_model(annotation):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def takes_context(annotation: Any) -> bool:
    """Return whether a first parameter annotated so can be a run's context (unannotated ones can)."""
    if annotation is inspect.Parameter.empty:
        return True
    if isinstance(annotation, type):
        text = " ".join(base.__name__ for base in annotation.__mro__)
    else:
        text = str(annotation)
    return any(name in text for name in _CONTEXT_NAMES)


def takes_payload(annotation: Any) -> bool:
    """Return whether a parameter annotated so can be a payload: models, JSON containers, str, or untyped."""
    return any(_takes_payload(member) for member in members(annotation))


def _takes_payload(member: Any) -> bool:
    if member in (inspect.Parameter.empty, Any, object, str) or is_unresolved(member):
        return True
    kind = get_origin(member) or member
    if isinstance(kind, type):
        return is_typeddict(kind) or issubclass(kind, BaseModel | dict | list) or kind in (Mapping, Sequence)
    return isinstance(kind, typing.TypeVar)


def check_hook_signature(func: UserFunction, *, what: str = "hook") -> UserFunction:
    """Return the function if it takes ``(ctx, hook_context)``, or what a guardrail takes.

    Raises:
        TypeError: It takes fewer arguments, or more.
    """
    parameters = positional_parameters(func, most=2, what=f"the {what} {func!r}")
    if len(parameters) != 2:
        raise TypeError(f"the {what} {func!r} must take (ctx, {what}_context), not {_listed(parameters)}")
    return func


def check_seconds(seconds: Any, what: str) -> float | None:
    """Return a duration that may be None, for none.

    Raises:
        ValueError: It is not a number above 0.
    """
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise ValueError(f"{what} cannot be {seconds!r}: give seconds, more than 0, or None for no limit")
    return float(seconds)


def check_signature(func: UserFunction, what: str) -> list[inspect.Parameter]:
    """Return the parameters of a workflow's function: a context and perhaps a payload.

    Raises:
        TypeError: It takes anything else.
    """
    parameters = positional_parameters(func, most=2, what=f"the function of {what}")
    if not takes_context(parameters[0].annotation):
        raise TypeError(
            f"the first parameter of {what} is annotated {parameters[0].annotation!r}: it receives the run's "
            "context, annotate it WorkflowContext or not at all"
        )
    if len(parameters) == 2 and not takes_payload(annotation := resolved(func, parameters[1].annotation)):
        raise TypeError(
            f"the payload of {what} is annotated {annotation!r}: use a Pydantic model, dict, list, str or Any"
        )
    return parameters


def is_async(func: UserFunction) -> bool:
    """Return whether calling `func` gives a coroutine."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


async def call_function(func: UserFunction, *arguments: Any) -> Any:
    """Return what `func` returns.

    It is awaited if it is async, else run in a thread of the loop's default executor, with the caller's
    context variables.
    """
    if is_async(func):
        return await func(*arguments)
    result = await asyncio.to_thread(_without_stop_iteration, func, *arguments)
    return await result if inspect.isawaitable(result) else result


def _without_stop_iteration(func: UserFunction, *arguments: Any) -> Any:
    try:
        return func(*arguments)
    except StopIteration as error:
        # A future cannot hold one before Python 3.12: whoever awaits it would wait for ever.
        raise RuntimeError("function raised StopIteration") from error
