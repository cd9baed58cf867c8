"""What is the same schema, and what may follow what."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.stack.registry_replies import Refused
from sluice.stack.registry_rules import LEVELS, Schema, differences, read

TYPES = st.sampled_from(
    ["int", "long", "float", "double", "string", "bytes", ["null", "long"], ["null", "string"]]
)
FIELDS = st.dictionaries(st.sampled_from("abcd"), st.tuples(TYPES, st.booleans()), min_size=1)
DEFAULTS = {"int": 1, "long": 1, "float": 1.5, "double": 1.5, "string": "s", "bytes": "b"}


def schema_of(fields: dict[str, tuple[Any, bool]]) -> Schema:
    found = []
    for name, (kind, has_default) in fields.items():
        default = {"default": None if isinstance(kind, list) else DEFAULTS[kind]} if has_default else {}
        found.append({"name": name, "type": kind, **default})
    return read(json.dumps({"type": "record", "name": "R", "fields": found}))


@given(FIELDS)
def test_every_schema_may_follow_itself(fields: dict[str, tuple[Any, bool]]) -> None:
    schema = schema_of(fields)
    for level in LEVELS:
        assert differences((schema, []), [(schema, [])] * 3, level) == []


@given(FIELDS, FIELDS)
def test_forward_is_backward_the_other_way_round_and_full_is_both(
    one: dict[str, tuple[Any, bool]], other: dict[str, tuple[Any, bool]]
) -> None:
    new, old = (schema_of(one), list[str]()), (schema_of(other), list[str]())
    backward, forward = not differences(new, [old], "BACKWARD"), not differences(new, [old], "FORWARD")
    assert forward == (not differences(old, [new], "BACKWARD"))
    assert (not differences(new, [old], "FULL")) == (backward and forward)
    assert not differences(new, [old], "NONE")


@given(FIELDS, st.lists(FIELDS, min_size=1, max_size=4))
def test_transitive_is_every_pair(
    new: dict[str, tuple[Any, bool]], olds: list[dict[str, tuple[Any, bool]]]
) -> None:
    mine = (schema_of(new), list[str]())
    earlier = [(schema_of(old), list[str]()) for old in olds]
    for level in ("BACKWARD", "FORWARD", "FULL"):
        pairs = [not differences(mine, [old], level) for old in earlier]
        assert (not differences(mine, earlier, f"{level}_TRANSITIVE")) == all(pairs)
        assert (not differences(mine, earlier, level)) == pairs[-1]


@given(FIELDS, st.randoms(use_true_random=False))
def test_identity_ignores_blanks_and_the_order_of_attributes(
    fields: dict[str, tuple[Any, bool]], rng: Any
) -> None:
    def shuffled(tree: Any) -> Any:
        if isinstance(tree, dict):
            items = [(name, shuffled(value)) for name, value in tree.items()]
            rng.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in tree] if isinstance(tree, list) else tree

    schema = schema_of(fields)
    again = read(json.dumps(shuffled(json.loads(schema.text)), indent=3))
    assert again.identity == schema.identity
    other = read(schema.text.replace('"name":"R"', '"name":"S"'))
    assert other.identity != schema.identity


def test_a_refusal_says_what_and_where() -> None:
    old, new = schema_of({"a": ("int", False)}), schema_of({"a": ("int", False), "b": ("int", False)})
    (why,) = differences((new, []), [(old, [])], "BACKWARD")
    assert "reader_field_missing_default_value" in why
    assert "fields/1" in why


@given(st.text())
def test_any_text_is_a_schema_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        assert read(text).identity


@pytest.mark.parametrize("text", ['"string"', '["null","long"]', '{"type":"map","values":"bytes"}'])
def test_schemas_that_are_no_records(text: str) -> None:
    assert json.loads(read(text).text) == json.loads(text)


def test_unknown_logical_types_are_plain_types() -> None:
    assert read('{"type": "long", "logicalType": "aeons"}').kind == "AVRO"


def union_of_records(records: int, field: str) -> str:
    branches = [
        {"type": "record", "name": f"R{i}", "fields": [{"name": field, "type": "int"}]}
        for i in range(records)
    ]
    return json.dumps({"type": "record", "name": "U", "fields": [{"name": "a", "type": branches}]})


def test_a_schema_that_would_keep_the_registry_busy_is_refused() -> None:
    """1,500 records in a union (90 kB): any reader could stop the registry for minutes with one comparison."""
    wide = json.dumps(
        {"type": "record", "name": "W", "fields": [{"name": f"f{i}", "type": "int"} for i in range(7_000)]}
    )
    for text in (union_of_records(1_500, "x"), wide):
        with pytest.raises(Refused, match="larger than"):
            read(text)
    with pytest.raises(Refused, match="larger than"):
        read(record_of("R", "int"), (), [union_of_records(64, "x")])
    one, other = read(union_of_records(60, "x")), read(union_of_records(60, "y"))
    assert differences((one, []), [(other, [])], "FULL")


def record_of(name: str, kind: str) -> str:
    return json.dumps({"type": "record", "name": name, "fields": [{"name": "a", "type": kind}]})


@pytest.mark.parametrize("fields", [1, "x", {"a": 1}, [1], [{"name": "a"}], None])
def test_a_schema_of_a_strange_shape_is_refused_and_not_a_crash(fields: object) -> None:
    with pytest.raises(Refused):
        read(json.dumps({"type": "record", "name": "R", "fields": fields}))
