import asyncio
import contextvars
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import pytest
from pydantic import BaseModel

from polos import registry
from polos.current import current_context, inside_run
from polos.errors import RunFailedError, WorkflowTimeoutError
from polos.functions import call_function
from polos.queues import Queue, queue, queue_settings
from polos.tools.tool import tool
from polos.workflows import Workflow, WorkflowState, get_all_workflows, get_workflow, workflow


class Payload(BaseModel):
    x: int


class Wider(Payload):
    y: int = 0


class Other(BaseModel):
    x: str


class WorkflowContext:  # the engine's has this name, which is what counts
    pass


class AgentContext(WorkflowContext):
    pass


@dataclass
class Context:
    execution_id: str = "run-1"
    session_id: str | None = None
    user_id: str | None = None


@dataclass
class Handle:
    id: str = "run-1"


@dataclass
class Client:
    """Stands for a server: keeps what was started, answers with a given record."""

    record: dict[str, Any] = field(default_factory=lambda: {"status": "completed", "result": None})
    calls: list[dict[str, Any]] = field(default_factory=list)
    waits: list[tuple[str, float | None]] = field(default_factory=list)

    async def invoke(self, workflow_id, payload=None, **options):
        self.calls.append({"workflow_id": workflow_id, "payload": payload, **options})
        return Handle()

    async def wait(self, execution_id, *, timeout_seconds=None):
        self.waits.append((execution_id, timeout_seconds))
        return self.record


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_definitions", {})


def record(**fields):
    return {"status": "completed", "result": None, "error": None, "output_schema_name": None, **fields}


# -- the decorator and the registry


def test_all_three_ways_of_decorating_register_a_workflow():
    @workflow
    async def bare(ctx): ...

    @workflow()
    async def called(ctx): ...

    @workflow(id="with-dashes", description="d")
    async def named(ctx): ...

    assert get_all_workflows() == {"bare": bare, "called": called, "with-dashes": named}
    assert (named.id, named.description, named.workflow_type) == ("with-dashes", "d", "workflow")


def test_the_attributes_have_their_defaults():
    @workflow
    def plain(ctx): ...

    unset = ("description", "trigger_on_event", "batch_timeout_seconds", "schedule", "state_schema", "route")
    assert [getattr(plain, name) for name in unset] == [None] * len(unset)
    assert plain.queue_concurrency_limit is None
    assert (plain.queue_name, plain.batch_size, plain.on_start, plain.on_end) == ("plain", 1, [], [])
    assert [plain.is_async, plain.has_payload_param, plain.is_schedulable] == [False] * 3


def test_the_copy_of_the_registry_can_be_changed_freely():
    get_all_workflows()["x"] = None
    assert get_workflow("x") is None


def test_the_last_definition_of_an_id_wins_without_a_word_in_one_file(caplog):
    first = workflow(id="w")(lambda ctx: 1)
    second = workflow(id="w")(lambda ctx: 2)
    assert get_workflow("w") is second is not first
    assert not caplog.text


def test_an_id_defined_in_two_files_is_logged_with_both_places(tmp_path, caplog):
    for name in ("one", "two"):
        code = "from polos.workflows import workflow\n@workflow(id='w')\ndef f(ctx): ...\n"
        exec(compile(code, f"/srv/{name}.py", "exec"), {"__name__": name})
    assert "/srv/two.py:2 replaces the workflow defined at /srv/one.py:2" in caplog.text


def test_an_id_taken_by_another_kind_is_logged(caplog):
    workflow(id="same")(lambda ctx: 1)
    tool(id="same")(lambda ctx: 1)
    assert "the tool defined at" in caplog.text
    assert "replaces the workflow" in caplog.text


@pytest.mark.parametrize("bad", ["", "  ", 5, b"w"])
def test_an_id_must_be_a_non_empty_string(bad):
    with pytest.raises(ValueError, match="non-empty string"):
        workflow(id=bad)(lambda ctx: 1)


def test_a_workflow_built_directly_is_not_registered():
    built = Workflow(
        "direct", lambda ctx, payload: payload, payload_schema_class=Payload, output_schema=Other
    )
    assert get_workflow("direct") is None
    assert (built.payload_schema_class, built.output_schema) == (Payload, Other)
    assert built.parse_payload({"x": 1}) == Payload(x=1)


# -- signatures


def test_signatures_that_are_accepted():
    def bare(ctx, payload): ...
    def named(ctx: WorkflowContext, payload: dict): ...
    def union(ctx: WorkflowContext | AgentContext, payload: dict[str, Any]): ...
    def optional(ctx: Optional[AgentContext], payload: Optional[Payload]): ...  # noqa: UP045
    def either(ctx: "WorkflowContext", payload: Union[Payload, dict]): ...  # noqa: UP007
    def modern(ctx, payload: Payload | None = None): ...
    def mixed(ctx, payload: Payload | dict): ...
    def listed(ctx, payload: list[Payload]): ...
    def text(ctx, payload: str): ...
    def anything(ctx, payload: Any, *, verbose: bool = False): ...
    def unknown(ctx: "elsewhere.WorkflowContext", payload: "NotYetThere"): ...  # noqa: F821

    for func in (bare, named, union, optional, either, modern, mixed, listed, text, anything, unknown):
        assert workflow(func).has_payload_param


def test_signatures_that_are_refused():
    def none(): ...
    def three(ctx, payload, more): ...
    def variadic(ctx, *rest): ...
    def keywords(ctx, **rest): ...
    def keyword_only(ctx, *, needed): ...
    def no_context(payload: Payload): ...
    def text_context(ctx: "dict"): ...
    def number(ctx, payload: int): ...
    def a_set(ctx, payload: set): ...
    async def generator(ctx):
        yield 1

    for func in (
        none,
        three,
        variadic,
        keywords,
        keyword_only,
        no_context,
        text_context,
        number,
        a_set,
        generator,
    ):
        with pytest.raises(TypeError, match=func.__name__):
            workflow(func)


def test_a_class_defined_after_the_workflow_is_found_on_first_use():
    code = """
from __future__ import annotations
from pydantic import BaseModel
from polos.workflows import workflow

@workflow
def late(ctx: WorkflowContext, payload: Late | None) -> Late: ...

class Late(BaseModel):
    x: int
"""
    names = {"__name__": "late_module"}
    exec(code, names)
    assert names["late"].parse_payload({"x": 1}) == names["Late"](x=1)
    assert names["late"].output_schema is names["Late"]


def test_a_quoted_class_in_a_union_is_found_on_first_use():
    code = """
from typing import Optional
from pydantic import BaseModel
from polos.workflows import workflow

@workflow
def late(ctx, payload: Optional["Late"]): ...

class Late(BaseModel):
    x: int
"""
    names = {"__name__": "late_module"}
    exec(code, names)
    assert names["late"].parse_payload({"x": 1}) == names["Late"](x=1)
    assert names["late"].check_payload(None) is None


def test_a_quoted_local_class_is_found():
    class Local(BaseModel):
        x: int

    @workflow
    def quoted(ctx, payload: "Local"): ...

    assert quoted.payload_schema_class is Local


def test_a_type_that_is_never_found_means_plain_data_and_one_warning(caplog):
    @workflow
    def lost(ctx, payload: "Nowhere"): ...  # noqa: F821

    assert lost.parse_payload({"x": 1}) == lost.parse_payload({"x": 1}) == {"x": 1}
    assert caplog.text.count("'Nowhere' is not found") == 1


# -- queues, schedules, triggers, hooks, state


@pytest.mark.parametrize(
    ("given", "name", "limit"),
    [
        ("shared", "shared", None),
        (Queue("q", 3), "q", 3),
        (queue("q"), "q", None),
        ({"concurrency_limit": 3}, "w", 3),
        ({"name": "q"}, "q", None),
        (None, "w", None),
    ],
)
def test_a_queue_may_be_given_in_four_ways(given, name, limit):
    built = workflow(id="w", queue=given)(lambda ctx: 1)
    assert (built.queue_name, built.queue_concurrency_limit) == (name, limit)


@pytest.mark.parametrize(
    "given", [5, "", {"nmae": "q"}, {"concurrency_limit": 0}, {"name": "q", "concurrency_limit": "3"}]
)
def test_another_queue_is_refused(given):
    with pytest.raises(ValueError, match=r"cannot be used|unknown keys"):
        queue_settings(given, "w")


def test_a_queue_shows_both_fields():
    assert repr(queue("q", 2)) == "Queue(name='q', concurrency_limit=2)"


@pytest.mark.parametrize(
    ("schedule", "schedulable", "cron"),
    [
        (None, False, None),
        (False, False, None),
        (True, True, None),
        ("0 8 * * *", True, ("0 8 * * *", "UTC", "global")),
        ({"cron": "0 8 * * 1", "timezone": "Europe/Berlin"}, True, ("0 8 * * 1", "Europe/Berlin", "global")),
        ({"cron": "0 8 * * 1", "key": "k"}, True, ("0 8 * * 1", "UTC", "k")),
    ],
)
def test_schedules_that_are_accepted(schedule, schedulable, cron):
    built = workflow(id="w", schedule=schedule)(lambda ctx: 1)
    declared = built.cron_schedule
    assert built.schedule == schedule
    assert built.is_schedulable is schedulable
    assert (declared and (declared.cron, declared.timezone, declared.key)) == cron


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "0 8 * * *", "trigger_on_event": "t"},
        {"schedule": True, "queue": "q"},
        {"schedule": "0 8 * * *", "queue": {"concurrency_limit": 1}},
        {"schedule": "hourly"},
        {"schedule": ""},
        {"schedule": 5},
        {"schedule": {"timezone": "UTC"}},
        {"schedule": {"cron": "0 8 * * *", "tz": "UTC"}},
        {"schedule": {"cron": "0 8 * * *", "timezone": "Mars/Olympus"}},
        {"schedule": {"cron": "0 8 * * *", "timezone": "Europe"}},
        {"schedule": {"cron": "0 8 * * *", "key": ""}},
        {"batch_size": 0},
        {"batch_timeout_seconds": 0},
    ],
)
def test_options_that_contradict_or_cannot_be_read_are_refused(options):
    with pytest.raises(ValueError, match=r"'w'|cannot be used|cron|unknown"):
        workflow(id="w", **options)(lambda ctx: 1)


def test_false_as_schedule_goes_with_a_queue_and_a_trigger():
    built = workflow(id="w", schedule=False, queue="q", trigger_on_event="t", batch_size=10)(lambda ctx: 1)
    assert (built.trigger_on_event, built.batch_size, built.queue_name) == ("t", 10, "q")


@pytest.mark.parametrize("hooks", [{"on_start": print}, {"on_end": [print]}])
def test_one_hook_or_a_list_of_them_is_kept(hooks):
    made = workflow(id="w", **hooks)(lambda ctx: 1)
    assert [*made.on_start, *made.on_end] == [print]


@pytest.mark.parametrize("hooks", ["print", [print, 5]])
def test_a_hook_that_is_not_callable_is_refused(hooks):
    with pytest.raises(TypeError, match=r"on_start has .* not callable"):
        workflow(id="w", on_start=hooks)(lambda ctx: 1)


class Counter(WorkflowState):
    count: int = 0


def stateful():
    return workflow(id="w", state_schema=Counter)(lambda ctx: 1)


def test_a_new_state_comes_from_data_or_from_defaults():
    assert stateful().build_state({"count": 2}) == Counter(count=2)
    assert stateful().build_state(None) == Counter()


def test_assignments_to_a_state_are_validated():
    with pytest.raises(ValueError, match="valid integer"):
        Counter().count = "many"


def test_an_initial_state_is_checked_early():
    assert stateful().check_state(Counter(count=3)) == {"count": 3}
    with pytest.raises(ValueError, match="state of workflow 'w' is not Counter: count: "):
        stateful().check_state({"count": "many"})


def test_an_initial_state_without_a_schema_is_ignored_with_a_warning(caplog):
    assert workflow(id="w")(lambda ctx: 1).check_state({"a": 1}) is None
    assert "no state_schema" in caplog.text


def test_an_initial_state_above_one_mebibyte_is_refused():
    class Text(WorkflowState):
        text: str

    built = workflow(id="w", state_schema=Text)(lambda ctx: 1)
    with pytest.raises(ValueError, match="1048576 are allowed"):
        built.check_state({"text": "x" * (1 << 20)})


def test_a_state_schema_must_be_a_model():
    with pytest.raises(TypeError, match="Pydantic model"):
        workflow(id="w", state_schema=dict)(lambda ctx: 1)


# -- payloads


def taking(annotation, **options):
    def body(ctx, payload):
        return payload

    body.__annotations__["payload"] = annotation
    return workflow(id="w", **options)(body)


@pytest.mark.parametrize(
    ("annotation", "data", "parsed"),
    [
        (Payload, {"x": "1"}, Payload(x=1)),
        (Payload | None, {"x": 1}, Payload(x=1)),
        (Payload | None, None, None),
        (dict | Payload, {"x": 1}, Payload(x=1)),
        (dict | Payload, {"y": 1}, {"y": 1}),
        (Payload | Other, {"x": "text"}, Other(x="text")),
        (list[Payload], [{"x": 1}], [Payload(x=1)]),
        (dict, {"x": 1}, {"x": 1}),
        (list, [1], [1]),
        (str, "text", "text"),
        (Any, 5, 5),
    ],
)
def test_data_is_parsed_into_the_annotated_type(annotation, data, parsed):
    result = taking(annotation).parse_payload(data)
    assert result == parsed
    assert type(result) is type(parsed)


def test_data_that_does_not_fit_is_refused_with_workflow_and_problem():
    with pytest.raises(ValueError, match=r"payload of workflow 'w' is not Payload: x: .*valid integer"):
        taking(Payload).parse_payload({"x": "secret"})


def test_the_message_does_not_repeat_the_data():
    with pytest.raises(ValueError, match="payload") as caught:
        taking(Payload).parse_payload({"x": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


def test_a_missing_payload_is_refused_unless_none_or_a_default_will_do():
    def with_default(ctx, payload: Payload = Payload(x=7)):  # noqa: B008
        return payload

    with pytest.raises(ValueError, match="workflow 'w' needs a payload: Payload"):
        taking(Payload).check_payload(None)
    with pytest.raises(ValueError, match="any JSON value"):
        taking(Any).check_payload(None)
    assert taking(Payload | None).check_payload(None) is None
    assert workflow(with_default).check_payload(None) is None


def test_a_payload_is_dropped_when_the_function_takes_none():
    assert workflow(id="w")(lambda ctx: 1).check_payload({"x": 1}) is None


@pytest.mark.parametrize("payload", [Payload(x=1), Wider(x=1), {"x": 1}])
def test_a_payload_is_sent_as_json_data(payload):
    assert taking(Payload).check_payload(payload)["x"] == 1


def test_a_payload_that_is_not_json_is_a_type_error():
    with pytest.raises(
        TypeError, match=r"payload of workflow 'w' as JSON: a value of type object at \['x'\]"
    ):
        taking(dict).check_payload({"x": object()})


def test_a_model_of_another_class_must_fit():
    assert taking(Payload).check_payload(Other(x="1")) == {"x": "1"}
    with pytest.raises(ValueError, match="is not Payload"):
        taking(Payload).check_payload(Other(x="one"))


# -- calling the function


async def test_async_functions_are_awaited():
    @workflow
    async def body(ctx, payload: Payload):
        await asyncio.sleep(0)
        return (ctx, payload.x)

    assert body.is_async
    assert await body.call("ctx", Payload(x=1)) == ("ctx", 1)


async def test_sync_functions_run_in_a_thread_with_the_callers_variables():
    variable = contextvars.ContextVar("variable")
    variable.set("mine")

    @workflow
    def body(ctx):
        return threading.current_thread() is threading.main_thread(), variable.get()

    assert await body.call(None) == (False, "mine")


async def test_an_awaitable_result_of_a_sync_function_is_awaited():
    async def later():
        return 5

    assert await workflow(id="w")(lambda ctx: later()).call(None) == 5


async def test_a_default_payload_is_used_when_there_is_none():
    @workflow
    async def body(ctx, payload: Payload = Payload(x=7)):  # noqa: B008
        return payload.x

    assert await body.call(None, None) == 7


@pytest.mark.timeout(120)
async def test_stop_iteration_in_a_sync_function_does_not_hang():
    with pytest.raises(RuntimeError, match="StopIteration"):
        await call_function(lambda: next(iter([])))


# -- invoke and run


async def test_invoke_passes_everything_on_and_returns_the_handle():
    client = Client()
    built = taking(Payload, queue=Queue("q", 2), state_schema=Counter)
    handle = await built.invoke(
        client,
        Payload(x=1),
        concurrency_key="k",
        session_id="s",
        user_id="u",
        initial_state=Counter(count=1),
        run_timeout_seconds=5,
    )
    assert handle.id == "run-1"
    assert client.calls == [
        {
            "workflow_id": "w",
            "payload": {"x": 1},
            "queue_name": "q",
            "queue_concurrency_limit": 2,
            "concurrency_key": "k",
            "session_id": "s",
            "user_id": "u",
            "initial_state": {"count": 1},
            "run_timeout_seconds": 5,
        }
    ]


async def test_a_queue_given_to_invoke_replaces_name_and_limit():
    client = Client()
    await taking(dict, queue=Queue("q", 2)).invoke(client, {}, queue="other")
    assert (client.calls[0]["queue_name"], client.calls[0]["queue_concurrency_limit"]) == ("other", None)


async def test_run_returns_the_result_as_its_class():
    @workflow
    async def body(ctx) -> Payload: ...

    name = f"{__name__}.Wider"
    assert await body.run(Client(record(result={"x": 1}))) == Payload(x=1)
    assert await body.run(Client(record(result={"x": 1}, output_schema_name=name))) == Wider(x=1)
    assert await body.run(Client(record(result={"x": 1}, output_schema_name="gone.Class"))) == Payload(x=1)


async def test_run_without_a_declared_class_uses_the_recorded_one():
    body = workflow(id="w")(lambda ctx: 1)
    name = f"{__name__}.Payload"
    assert await body.run(Client(record(result={"x": 1}, output_schema_name=name))) == Payload(x=1)
    assert await body.run(Client(record(result=[{"x": 1}], output_schema_name=f"list[{name}]"))) == [
        Payload(x=1)
    ]
    assert await body.run(Client(record(result={"x": 1}))) == {"x": 1}


@pytest.mark.parametrize("result", [None, 0, "", [], {}, False])
async def test_falsy_results_come_back_as_they_are(result):
    assert await workflow(id="w")(lambda ctx: 1).run(Client(record(result=result))) == result


@pytest.mark.parametrize(
    ("status", "error", "text"), [("failed", "boom", "boom"), ("cancelled", None, "cancelled")]
)
async def test_a_run_that_did_not_complete_is_a_runtime_error(status, error, text):
    with pytest.raises(RuntimeError, match=f"Workflow execution failed: {text}") as caught:
        await workflow(id="w")(lambda ctx: 1).run(Client(record(status=status, error=error)))
    assert isinstance(caught.value, RunFailedError)


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_a_run_ended_by_its_time_limit_is_a_timeout(status):
    with pytest.raises(WorkflowTimeoutError, match="run-1 did not end within 5 seconds"):
        await workflow(id="w")(lambda ctx: 1).run(
            Client(record(status=status, cancelled_by="timeout")), timeout=5
        )


@pytest.mark.parametrize(("timeout", "run_timeout_seconds"), [(600.0, 600), (0.2, 1), (None, None)])
async def test_the_timeout_is_the_callers_and_the_runs(timeout, run_timeout_seconds):
    client = Client()
    await workflow(id="w")(lambda ctx: 1).run(client, timeout=timeout)
    assert client.waits == [("run-1", timeout)]
    assert client.calls[0]["run_timeout_seconds"] == run_timeout_seconds


async def test_the_client_may_be_left_out(monkeypatch):
    client = Client()
    module = type(sys)("polos.client")
    module.default_client = lambda: client
    monkeypatch.setitem(sys.modules, "polos.client", module)
    await taking(dict).run({"x": 1})
    await taking(dict).run(payload={"x": 2})
    assert [call["payload"] for call in client.calls] == [{"x": 1}, {"x": 2}]


async def test_something_else_in_place_of_the_client_is_refused():
    with pytest.raises(TypeError, match="is not a client"):
        await taking(dict).run("http://localhost", {"x": 1})


@pytest.mark.parametrize("method", ["run", "invoke"])
async def test_starting_a_run_inside_a_run_is_refused(method):
    client = Client()
    token = current_context.set(Context("outer"))
    try:
        assert inside_run()
        with pytest.raises(
            RuntimeError, match=r"'w' was called inside run 'outer'.*ctx\.step\.invoke_and_wait"
        ):
            await getattr(workflow(id="w")(lambda ctx: 1), method)(client)
    finally:
        current_context.reset(token)
    assert not client.calls
    assert not inside_run()


async def test_nothing_is_started_with_a_bad_payload_or_state():
    client = Client()
    with pytest.raises(ValueError, match="needs a payload"):
        await taking(Payload).run(client)
    with pytest.raises(ValueError, match="is not Counter"):
        await stateful().run(client, initial_state={"count": "many"})
    assert not client.calls


def test_importing_definitions_costs_no_service(tmp_path):
    import subprocess

    code = (
        "import sys, polos.workflows, polos.tools.tool, polos.agents.stop_conditions\n"
        "print([m for m in ('sqlalchemy', 'celery', 'redis', 'litellm', 'polos.client') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
