import dataclasses
import datetime
import decimal
import enum
import json
import logging
import pathlib
import sys
import uuid

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from polos.errors import SerializationError, ValueTooLargeError
from polos.serialization import (
    deserialize,
    dumps,
    is_json_serializable,
    json_serialize,
    loads,
    rebuild,
    safe_serialize,
    schema_name,
    serialize,
    to_data,
)


class Colour(enum.Enum):
    RED = "red"


class Tone(enum.StrEnum):
    LOUD = "loud"


class Item(BaseModel):
    name: str
    price: decimal.Decimal = decimal.Decimal("1.50")


class Order(BaseModel):
    items: list[Item]
    placed: datetime.datetime


class Renamed(BaseModel):
    max_results: int = Field(alias="maxResults")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    day: datetime.date
    raw: bytes

    @computed_field
    @property
    def weekday(self) -> int:
        return self.day.weekday()


class Outer:
    class Inner(BaseModel):
        x: int


class Anything(BaseModel):
    value: object


@dataclasses.dataclass
class Point:
    x: int
    tags: set[str]


NOON = datetime.datetime(2024, 1, 2, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, None),
        (0, 0),
        ("", ""),
        (Item(name="a"), {"name": "a", "price": "1.50"}),
        ([Item(name="a")], [{"name": "a", "price": "1.50"}]),
        ({"deep": ({"m": Item(name="a")},)}, {"deep": [{"m": {"name": "a", "price": "1.50"}}]}),
        (Point(1, {"b", "a"}), {"x": 1, "tags": ["a", "b"]}),
        (NOON, "2024-01-02T12:00:00Z"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.time(12, 30), "12:30:00"),
        (datetime.timedelta(hours=1), "PT1H"),
        (Colour.RED, "red"),
        (Tone.LOUD, "loud"),
        (frozenset({3, 1, 2}), [1, 2, 3]),
        (b"\xff\x00", "/wA="),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        ({2: "int", 1.5: "float", True: "bool"}, {"2": "int", "1.5": "float", "true": "bool"}),
        ({None: 1, Tone.LOUD: 2}, {"null": 1, "loud": 2}),
    ],
)
def test_a_supported_value_becomes_plain_data(value, data):
    assert to_data(value) == data


def test_members_of_a_set_that_cannot_be_compared_come_in_one_order():
    assert to_data({1, "a", None}) == to_data({None, "a", 1})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"items": [1, 2, 3, object()]}, r"type object at \['items'\]\[3\]"),
        ([{"x": float("nan")}], r"the number nan at \[0\]\['x'\]"),
        (float("inf"), "the number inf"),
        (Anything(value=object()), r"type object at \.value"),
        (Point(1, {object()}), r"type object at \.tags\{\}"),
        ({("a", 1): 1}, r"a dict key \('a', 1\) of type tuple"),
        (lambda: None, "type function"),
    ],
)
def test_the_offending_part_and_its_place_are_named(value, message):
    with pytest.raises(SerializationError, match=message):
        to_data(value)


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = [1]
    loop.append({"again": loop})
    with pytest.raises(SerializationError, match=r"a list that contains itself at \[1\]\['again'\]"):
        to_data(loop)


def test_a_value_nested_too_deeply_is_refused():
    value: list[object] = []
    for _ in range(sys.getrecursionlimit() * 20):
        value = [value]
    with pytest.raises(SerializationError, match="nested too deeply"):
        to_data(value)


def test_a_serialization_error_is_a_type_error():
    with pytest.raises(TypeError):
        serialize(object())


def test_text_is_compact_and_keeps_the_order_of_keys():
    assert dumps({"b": 1, "a": [1, 2]}) == '{"b":1,"a":[1,2]}'


@pytest.mark.parametrize("text", ["\ud800", "\x00\x1f\x7f\x85", "\u2028\u2029", "é😀", "a\ud83d", ""])
def test_any_string_survives_as_one_line_of_utf8(text):
    encoded = dumps({"t": text})
    assert loads(encoded.encode()) == {"t": text}
    assert len(encoded.splitlines()) == 1


def test_the_limit_counts_bytes_of_utf8():
    assert dumps("éé", limit_bytes=6) == '"éé"'
    with pytest.raises(
        ValueTooLargeError, match=r"result of step 'a' is 6 bytes .* 5 .*POLOS_MAX_VALUE_BYTES"
    ):
        dumps("éé", limit_bytes=5, what="result of step 'a'")


def test_models_and_uniform_lists_of_models_have_a_name():
    assert schema_name(Item(name="a")) == f"{__name__}.Item"
    assert schema_name([Item(name="a"), Item(name="b")]) == f"list[{__name__}.Item]"
    assert schema_name(Outer.Inner(x=1)) == f"{__name__}.Outer.Inner"


@pytest.mark.parametrize(
    "value", [None, {}, [], [1], {"a": Item(name="a")}, [Item(name="a"), Outer.Inner(x=1)]]
)
def test_other_values_have_no_name(value):
    assert schema_name(value) is None


@pytest.mark.parametrize(
    "value",
    [
        Order(items=[Item(name="a")], placed=NOON),
        Outer.Inner(x=1),
        [Item(name="a"), Item(name="b", price=decimal.Decimal("2.00"))],
        Renamed(maxResults=3),
        Strict(day=datetime.date(2024, 1, 2), raw=b"abc"),
    ],
)
def test_what_was_written_is_rebuilt_equal(value):
    assert rebuild(loads(dumps(value)), schema_name(value)) == value


def test_a_local_class_is_rebuilt_when_it_is_known():
    class Local(BaseModel):
        x: int

    data, name = to_data(Local(x=1)), schema_name(Local(x=1))
    assert rebuild(data, name, known=[Item, Local]) == Local(x=1)
    assert rebuild(data, name) == {"x": 1}


@pytest.mark.parametrize(
    "name",
    [
        "no.such.Class",
        f"{__name__}.Missing",
        "json.JSONDecoder",
        "os.path.join",
        "list[no.such.Class]",
        "Item",
        "",
        "list[]",
    ],
)
def test_a_class_that_is_not_there_leaves_the_data_and_a_warning(name, caplog):
    with caplog.at_level(logging.WARNING, logger="polos"):
        assert rebuild([{"x": 1}], name) == [{"x": 1}]
    assert "not available" in caplog.text


def test_stored_names_are_never_imported():
    module = "this"  # prints when imported, and nothing else imports it
    sys.modules.pop(module, None)
    rebuild({}, f"{module}.Zen")
    assert module not in sys.modules


@pytest.mark.parametrize("data", [{"name": 1}, "text", [1]])
def test_data_that_no_longer_fits_is_left_alone_with_a_warning(data, caplog):
    with caplog.at_level(logging.WARNING, logger="polos"):
        assert rebuild(data, f"{__name__}.Item") == data
    assert "does not fit" in caplog.text


def test_a_list_name_with_data_that_is_no_list_is_left_alone():
    assert rebuild(3, f"list[{__name__}.Item]") == 3


def test_a_class_of_the_script_is_found_under_its_module_name_too(monkeypatch):
    main = type(sys)("__main__")
    main.__file__, main.__spec__, main.Item = "/srv/order_program.py", None, Item
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert rebuild({"name": "a"}, "order_program.Item") == Item(name="a")
    assert rebuild({"name": "a"}, "__main__.Item") == Item(name="a")


def test_deserialize_takes_text_or_data():
    assert deserialize('{"name":"a"}', f"{__name__}.Item") == Item(name="a")
    assert deserialize({"a": 1}) == {"a": 1}


def test_json_serialize_gives_text():
    assert json.loads(json_serialize(Item(name="a"))) == {"name": "a", "price": "1.50"}


def test_serializable_or_not():
    assert is_json_serializable({"a": NOON})
    assert not is_json_serializable({"a": object()})


def test_safe_serialize_replaces_only_what_cannot_be_json():
    loop: dict[str, object] = {}
    loop["self"] = loop
    value = {
        "ok": Item(name="a"),
        "bad": [object(), dumps, Item],
        "nan": float("nan"),
        ("k",): 1,
        "loop": loop,
    }
    assert safe_serialize(value) == {
        "ok": {"name": "a", "price": "1.50"},
        "bad": ["<object>", "<dumps>", "<Item>"],
        "nan": "<nan>",
        "<tuple>": 1,
        "loop": {"self": "<...>"},
    }
