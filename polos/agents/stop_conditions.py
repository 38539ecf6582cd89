"""When an agent stops calling tools: `@stop_condition` and the conditions that come with the package."""

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from polos.errors import ConfigurationError
from polos.functions import (
    UserFunction,
    call_function,
    is_model,
    is_unresolved,
    positional_parameters,
    resolved,
    signature_of,
)
from polos.inputs import problems
from polos.serialization import dumps
from polos.types import Step, Usage

logger = logging.getLogger(__name__)


class StopConditionContext(BaseModel):
    """What a condition decides on: the iterations of the run so far; the last has just run its tools.

    Attributes:
        usage: Of all model calls of the run, those beside its iterations included.
        elapsed_seconds: Since the run was created.
    """

    steps: list[Step] = Field(default_factory=list)
    agent_id: str | None = None
    agent_run_id: str | None = None
    usage: Usage = Field(default_factory=Usage)
    elapsed_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the context as JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: "dict[str, Any] | StopConditionContext") -> "StopConditionContext":
        """Return the context that `to_dict` gave, or the context itself."""
        return data if isinstance(data, cls) else cls.model_validate(data)


class StopCondition:
    """A condition as `@stop_condition` makes it.

    Called with a `StopConditionContext` it decides; called with a config, its fields, or nothing, it returns
    the same condition configured so.
    """

    def __init__(
        self, fn: UserFunction, config_class: type[BaseModel] | None, config: BaseModel | None = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self.__stop_condition_fn__ = fn
        self.__stop_condition_name__ = _name_of(fn)
        self.__stop_condition_config__ = config
        self._config_class = config_class

    def __call__(self, *arguments: Any, **fields: Any) -> Any:
        """Decide, when given a context; else return the condition configured with what was given."""
        if len(arguments) == 1 and isinstance(arguments[0], StopConditionContext) and not fields:
            return self.__stop_condition_fn__(*self._arguments(arguments[0]))
        return self._configured(arguments, fields)

    async def decide(self, context: StopConditionContext) -> Any:
        """Return what the function says; sync functions run in a thread."""
        return await call_function(self.__stop_condition_fn__, *self._arguments(context))

    def _arguments(self, context: StopConditionContext) -> list[Any]:
        if self._config_class is None:
            return [context]
        return [context, self.__stop_condition_config__ or self._config((), {})]

    def _configured(self, arguments: tuple[Any, ...], fields: dict[str, Any]) -> "StopCondition":
        if self._config_class is None:
            if arguments or fields:
                raise TypeError(f"stop condition {self.__stop_condition_name__!r} takes no configuration")
            return self
        config = self._config(arguments, fields)
        return StopCondition(self.__stop_condition_fn__, self._config_class, config)

    def _config(self, arguments: tuple[Any, ...], fields: dict[str, Any]) -> BaseModel:
        """Return the config given as an instance, as a dict, or as its fields by order and name."""
        config_class = self._config_class
        assert config_class is not None, "callers check"
        if len(arguments) == 1 and not fields and isinstance(arguments[0], config_class | dict):
            given = arguments[0]
        else:
            given = {**self._by_order(config_class, arguments), **fields}
        try:
            return given if isinstance(given, config_class) else config_class.model_validate(given)
        except ValidationError as error:
            name = self.__stop_condition_name__
            raise ValueError(
                f"stop condition {name!r} needs a {config_class.__name__}: {problems(error)}"
            ) from error

    def _by_order(self, config_class: type[BaseModel], arguments: tuple[Any, ...]) -> dict[str, Any]:
        if len(arguments) > len(config_class.model_fields):
            name, settings = self.__stop_condition_name__, ", ".join(config_class.model_fields)
            raise TypeError(f"stop condition {name!r} has fewer settings than were given: {settings}")
        return dict(zip(config_class.model_fields, arguments, strict=False))


Condition = StopCondition | Callable[[StopConditionContext], bool | Awaitable[bool]]


def stop_condition(fn: UserFunction) -> StopCondition:
    """Make a function ``(ctx: StopConditionContext)`` or ``(ctx, config: Model)`` a condition.

    It may be sync or async, and returns whether the agent stops.

    Raises:
        TypeError: The parameters are others, or not annotated so.
    """
    name = _name_of(fn)
    parameters = positional_parameters(fn, most=2, what=f"stop condition {name!r}")
    if not _is_context(resolved(fn, parameters[0].annotation)):
        raise TypeError(f"annotate the first parameter of stop condition {name!r} with StopConditionContext")
    config_class = resolved(fn, parameters[1].annotation) if len(parameters) == 2 else None
    if config_class is not None and not is_model(config_class):
        raise TypeError(
            f"annotate the second parameter of stop condition {name!r} with a Pydantic model class"
        )
    returned = resolved(fn, signature_of(fn).return_annotation)
    if returned is not bool and returned is not signature_of(fn).empty:
        logger.warning("stop condition %r should return bool, but is annotated %r", name, returned)
    return StopCondition(fn, config_class)


def _is_context(annotation: Any) -> bool:
    if is_unresolved(annotation):  # imported for type checking only
        return "StopConditionContext" in str(annotation)
    return isinstance(annotation, type) and issubclass(annotation, StopConditionContext)


def _name_of(fn: Any) -> str:
    return str(getattr(fn, "__name__", None) or type(fn).__name__)


def check_conditions(conditions: Iterable[Any] | None) -> list[Condition]:
    """Return the conditions of an agent as a list.

    Raises:
        TypeError: One is not callable.
    """
    listed = list(conditions or ())
    for condition in listed:
        if not callable(condition):
            raise TypeError(
                f"stop condition {condition!r} is not callable: decorate a function with @stop_condition"
            )
    return listed


def condition_name(condition: Condition) -> str:
    """Return the name of a condition, the same in every process."""
    return getattr(condition, "__stop_condition_name__", None) or _name_of(condition)


async def evaluate(condition: Condition, context: StopConditionContext) -> bool:
    """Return whether the agent should stop; sync functions run in a thread."""
    if isinstance(condition, StopCondition):
        return bool(await condition.decide(context))
    return bool(await call_function(condition, context))


# -- the conditions that come with the package


class MaxStepsConfig(BaseModel):
    """How many iterations an agent may make."""

    count: int = 20


class MaxTokensConfig(BaseModel):
    """How many tokens an agent may use over all iterations."""

    limit: int


class MaxCostConfig(BaseModel):
    """What an agent may cost, in US dollars."""

    limit: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DeadlineConfig(BaseModel):
    """How long an agent may take, since its run was created."""

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ExecutedToolConfig(BaseModel):
    """Tools that must all have been called."""

    tool_names: list[str]


class HasTextConfig(BaseModel):
    """Texts that must all have been said."""

    texts: list[str]


@stop_condition
def max_steps(ctx: StopConditionContext, config: MaxStepsConfig) -> bool:
    """Stop after `count` iterations."""
    return len(ctx.steps) >= config.count


@stop_condition
def max_tokens(ctx: StopConditionContext, config: MaxTokensConfig) -> bool:
    """Stop when the model calls have used `limit` tokens together."""
    return sum(step.usage.total_tokens for step in ctx.steps if step.usage) >= config.limit


@stop_condition
def max_cost(ctx: StopConditionContext, config: MaxCostConfig) -> bool:
    """Stop when the model calls of the run have cost `limit` US dollars together, judges included.

    Raises:
        ConfigurationError: Nobody lists the price of a model that was called.
    """
    usages = [ctx.usage, *(step.usage for step in ctx.steps if step.usage)]
    if any(usage.cost is None and usage.total_tokens for usage in usages):
        raise ConfigurationError(
            f"Nobody lists the price of a model that was called, so that max_cost(limit={config.limit:g}) "
            "cannot hold: list it in the file that POLOS_MODEL_PRICES names, or use max_tokens instead"
        )
    return (ctx.usage.cost or 0.0) >= config.limit


@stop_condition
def deadline(ctx: StopConditionContext, config: DeadlineConfig) -> bool:
    """Stop when the run was created `seconds` ago or more. The decision is recorded: a replay repeats it."""
    return ctx.elapsed_seconds >= config.seconds


@stop_condition
def executed_tool(ctx: StopConditionContext, config: ExecutedToolConfig) -> bool:
    """Stop when all of `tool_names` were called at least once; never for an empty list."""
    called = {call.function.name for step in ctx.steps for call in step.tool_calls}
    return bool(config.tool_names) and called.issuperset(config.tool_names)


@stop_condition
def has_text(ctx: StopConditionContext, config: HasTextConfig) -> bool:
    """Stop when the model has said all of `texts`; never for an empty list."""
    said = " ".join(_text(step.content) for step in ctx.steps if step.content is not None)
    return bool(config.texts) and all(text in said for text in config.texts)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else dumps(content)
