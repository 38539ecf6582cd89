"""What a run is started with: the payload its function takes, and the initial state."""

from __future__ import annotations

import functools
import inspect
import logging
from types import NoneType
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from polos.functions import UserFunction, is_model, is_unresolved, members, models_in, resolved, signature_of
from polos.serialization import dumps, is_storable, loads, validate

logger = logging.getLogger(__name__)

_MAX_STATE_BYTES = 1 << 20
_MAX_LABEL_CHARACTERS = 400


class PayloadParameter:
    """What one definition, called `what` in messages, takes as its payload.

    What the annotation names is looked up now, where local classes are in sight, and if that fails again on
    first use, when classes defined further down exist.
    """

    def __init__(
        self,
        func: UserFunction,
        parameter: inspect.Parameter,
        *,
        what: str,
        model: type[BaseModel] | None = None,
    ) -> None:
        self._func = func
        self._name = parameter.name
        self._given = resolved(func, parameter.annotation) if model is None else model
        self._what = what
        self.has_default = parameter.default is not parameter.empty

    @functools.cached_property
    def annotation(self) -> Any:
        """The annotation, or its text when it names something that cannot be found."""
        annotation = self._given
        if is_unresolved(annotation):
            annotation = resolved(self._func, signature_of(self._func).parameters[self._name].annotation)
        if is_unresolved(annotation):
            logger.warning(
                "%s: its payload type %r is not found, plain data is passed instead; define it in the module",
                self._what,
                annotation,
            )
        return annotation

    @property
    def model(self) -> type[BaseModel] | None:
        """The model class among the accepted types; the first if there are several."""
        return next((member for member in members(self.annotation) if is_model(member)), None)

    @property
    def is_required(self) -> bool:
        """Whether a run cannot start without a payload."""
        return not self.has_default and not self._accepts(None, NoneType)

    def _accepts(self, *types: Any) -> bool:
        return any(member in types for member in members(self.annotation))

    def check(self, payload: object) -> Any:
        """Return `payload` as JSON data, as the caller of a run gave it.

        Raises:
            ValueError: It is None but required, or a model that does not fit the annotated one.
            TypeError: It cannot be JSON.
        """
        if payload is None:
            if self.is_required:
                raise ValueError(f"{self._what} needs a payload: {self._expected()}")
            return None
        data = self._data(payload)
        if (
            isinstance(payload, BaseModel)
            and self.model
            and not isinstance(payload, tuple(models_in(self.annotation)))
        ):
            self.parse(data)
        return data

    def _data(self, payload: object) -> Any:
        return loads(dumps(payload, what=f"the payload of {self._what}"))

    def parse(self, data: Any) -> Any:
        """Return JSON `data` in the annotated type; plain data when no model is named there.

        Raises:
            ValueError: The data does not fit; the message says where.
        """
        if data is None and not self.is_required:
            return None
        if not models_in(self.annotation):
            return data
        try:
            return self._validated(data)
        except ValidationError as error:
            raise ValueError(
                f"the payload of {self._what} is not {self._expected()}: {problems(error)}"
            ) from error

    def _validated(self, data: Any) -> Any:
        """Return `data` as the first alternative it fits; the first failure counts when there is none."""
        failures = []
        for kind in self._alternatives:
            try:
                return _as_type(kind, data)
            except ValidationError as error:
                failures.append(error)
        raise failures[0]

    @property
    def _alternatives(self) -> list[Any]:
        # Models first: in `dict | Model` the dict would take everything.
        return sorted(members(self.annotation), key=lambda member: not models_in(member))

    def _expected(self) -> str:
        annotation = self.annotation
        if annotation in (inspect.Parameter.empty, Any) or is_unresolved(annotation):
            return "any JSON value"
        return annotation.__name__ if isinstance(annotation, type) else str(annotation)


class WorkflowState(BaseModel):
    """Base of a run's typed state; assignments are validated."""

    model_config = ConfigDict(validate_assignment=True)


def checked_state_schema(schema: Any) -> type[BaseModel] | None:
    """Return `schema`, or raise TypeError when it is not a model class."""
    if schema is not None and not is_model(schema):
        raise TypeError(f"state_schema={schema!r} cannot be used: give a Pydantic model class")
    return schema  # type: ignore[no-any-return]


def check_labels(**labels: object) -> None:
    """Check what runs are filed under, such as `session_id`; None is nothing.

    Raises:
        TypeError: One is not a string.
        ValueError: One is empty, too long, or cannot be stored.
    """
    for name, label in labels.items():
        if label is None:
            continue
        if not isinstance(label, str):
            raise TypeError(f"{name}={label!r} cannot be used: give a string")
        if not 0 < len(label) <= _MAX_LABEL_CHARACTERS or not is_storable(label):
            raise ValueError(
                f"{name}={label[:80]!r} cannot be used: give 1 to {_MAX_LABEL_CHARACTERS} characters, "
                "none of them NUL"
            )


def check_state(initial_state: object, schema: type[BaseModel] | None, *, what: str) -> Any:
    """Return the initial state of a run of `what` as JSON data; None, with a warning, without a schema.

    Raises:
        ValueError: It does not fit the schema, or is larger than 1 MiB.
    """
    if initial_state is None:
        return None
    if schema is None:
        logger.warning("%s has no state_schema: its initial_state is ignored", what)
        return None
    text = dumps(initial_state, what=f"the initial state of {what}")
    if (size := len(text.encode())) > _MAX_STATE_BYTES:
        raise ValueError(
            f"the initial state of {what} is {size} bytes as JSON, {_MAX_STATE_BYTES} are allowed"
        )
    data = loads(text)
    build_state(data, schema, what=what)
    return data


def build_state(data: Any, schema: type[BaseModel] | None, *, what: str) -> BaseModel | None:
    """Return a new state of `schema` from JSON `data`, or from its defaults; None without a schema.

    Raises:
        ValueError: The data does not fit, or there is a field without a default.
    """
    if schema is None:
        return None
    try:
        return validate(schema, {} if data is None else data)
    except ValidationError as error:
        raise ValueError(f"the state of {what} is not {schema.__name__}: {problems(error)}") from error


def _as_type(kind: Any, data: Any) -> Any:
    if is_model(kind):
        return validate(kind, data)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.validate_json(dumps(data), by_alias=True, by_name=True)


def problems(error: ValidationError) -> str:
    """Return what a validation found, on one line and without the data, which may be secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found)
