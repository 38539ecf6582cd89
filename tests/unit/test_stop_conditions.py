import pytest
from pydantic import BaseModel

from polos.agents.stop_conditions import (
    ExecutedToolConfig,
    HasTextConfig,
    MaxStepsConfig,
    MaxTokensConfig,
    StopConditionContext,
    check_conditions,
    condition_name,
    evaluate,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    stop_condition,
)
from polos.types import Step, ToolCall, ToolCallFunction, Usage


class Limit(BaseModel):
    x: int
    y: int = 0


@stop_condition
def always(ctx: StopConditionContext) -> bool:
    return True


@stop_condition
def limited(ctx: StopConditionContext, config: Limit) -> bool:
    return len(ctx.steps) >= config.x + config.y


def context(*steps):
    return StopConditionContext(steps=list(steps), agent_id="a", agent_run_id="r")


def step(content=None, *, tools=(), tokens=None):
    calls = [ToolCall(id=name, function=ToolCallFunction(name=name, arguments="{}")) for name in tools]
    usage = None if tokens is None else Usage(total_tokens=tokens)
    return Step(step=1, content=content, tool_calls=calls, usage=usage)


@pytest.mark.parametrize("condition", [always, always()])
async def test_a_condition_without_config_works_as_it_is_and_called(condition):
    assert await evaluate(condition, context()) is True
    assert condition(context()) is True


@pytest.mark.parametrize(
    "condition",
    [limited(Limit(x=1)), limited(x=1), limited({"x": 1}), limited(1), limited(1, 0), limited(0, y=1)],
)
async def test_every_way_to_configure_means_the_same(condition):
    assert await evaluate(condition, context()) is False
    assert await evaluate(condition, context(step())) is True


def test_configuring_leaves_the_original_alone():
    configured = limited(x=1)
    assert configured.__stop_condition_config__ == Limit(x=1)
    assert limited.__stop_condition_config__ is None


def test_name_and_function_are_attributes():
    assert limited(x=1).__stop_condition_name__ == limited.__name__ == "limited"
    assert limited(x=1).__stop_condition_fn__ is limited.__stop_condition_fn__


@pytest.mark.parametrize(
    "configure", [limited, lambda: limited(y=1), lambda: limited("x"), lambda: limited({})]
)
def test_a_missing_or_wrong_configuration_is_a_value_error(configure):
    with pytest.raises(ValueError, match="'limited' needs a Limit: x: "):
        configure()


async def test_an_unconfigured_condition_is_refused_when_it_has_to_decide():
    with pytest.raises(ValueError, match="'limited' needs a Limit"):
        await evaluate(limited, context())


def test_too_many_settings_are_refused():
    with pytest.raises(TypeError, match="fewer settings than were given: x, y"):
        limited(1, 2, 3)


def test_a_condition_without_config_takes_no_settings():
    with pytest.raises(TypeError, match="'always' takes no configuration"):
        always(5)


async def test_async_conditions_are_awaited():
    @stop_condition
    async def later(ctx: StopConditionContext) -> bool:
        return len(ctx.steps) == 1

    assert await evaluate(later, context(step())) is True
    assert await later(context()) is False


async def test_plain_functions_are_conditions_too():
    assert await evaluate(lambda ctx: len(ctx.steps), context(step())) is True


def test_annotations_may_be_text():
    code = (
        "from __future__ import annotations\n"
        "from polos.agents.stop_conditions import StopConditionContext, stop_condition\n"
        "from polos.agents.stop_conditions import MaxStepsConfig\n"
        "@stop_condition\n"
        "def late(ctx: StopConditionContext, config: MaxStepsConfig) -> bool: return config.count == 20\n"
    )
    names = {"__name__": "late_module"}
    exec(code, names)
    assert names["late"]()(context()) is True


def test_parameters_must_be_annotated():
    def bare(ctx) -> bool: ...
    def wrong(ctx: dict) -> bool: ...
    def no_model(ctx: StopConditionContext, config: dict) -> bool: ...
    def bare_config(ctx: StopConditionContext, config) -> bool: ...
    def none() -> bool: ...
    def three(ctx: StopConditionContext, config: Limit, more: int) -> bool: ...

    for func in (bare, wrong, no_model, bare_config, none, three):
        with pytest.raises(TypeError, match=func.__name__):
            stop_condition(func)


def test_another_return_annotation_only_warns(caplog):
    @stop_condition
    def odd(ctx: StopConditionContext) -> int:
        return 1

    assert odd(context()) == 1
    assert "'odd' should return bool" in caplog.text


def test_the_conditions_of_an_agent_must_be_callable():
    assert check_conditions(None) == []
    assert check_conditions([always, print]) == [always, print]
    with pytest.raises(TypeError, match="'max_steps' is not callable"):
        check_conditions(["max_steps"])


def test_conditions_have_names():
    def plain(ctx): ...

    assert [condition_name(c) for c in (max_steps(count=2), max_steps, plain)] == [
        "max_steps",
        "max_steps",
        "plain",
    ]


def test_the_context_survives_a_round_trip():
    before = context(step("a", tools=["t"], tokens=3))
    assert StopConditionContext.from_dict(before.to_dict()) == before
    assert StopConditionContext.from_dict(before) is before


@pytest.mark.parametrize(
    "condition", [max_steps, max_steps(), max_steps(count=20), max_steps(MaxStepsConfig())]
)
def test_max_steps_counts_to_twenty_by_default(condition):
    assert condition(context(*[step()] * 19)) is False
    assert condition(context(*[step()] * 20)) is True


def test_max_tokens_adds_up_usage():
    condition = max_tokens(MaxTokensConfig(limit=10))
    assert condition(context(step(tokens=4), step(tokens=5), step())) is False
    assert condition(context(step(tokens=4), step(tokens=6))) is True


def test_executed_tool_wants_all_of_them():
    condition = executed_tool(ExecutedToolConfig(tool_names=["a", "b"]))
    assert condition(context(step(tools=["a"]))) is False
    assert condition(context(step(tools=["a", "c"]), step(tools=["b"]))) is True
    assert executed_tool(tool_names=[])(context(step(tools=["a"]))) is False


def test_has_text_wants_all_of_them_in_any_content():
    condition = has_text(HasTextConfig(texts=["done", "ok"]))
    assert condition(context(step("done"))) is False
    assert condition(context(step("done"), step(None), step({"state": "ok"}))) is True
    assert has_text(texts=["a b"])(context(step("a"), step("b"))) is True
    assert has_text(texts=[])(context(step("a"))) is False
