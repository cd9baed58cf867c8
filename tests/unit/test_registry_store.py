"""The fold over the log: replay, compaction, ids; and logs that others wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.stack import registry_changes as changes
from sluice.stack.registry_memory import MemoryLog
from sluice.stack.registry_replies import Refused
from sluice.stack.registry_rules import Reference, Schema
from sluice.stack.registry_store import NOOP, Record, Store

SUBJECTS = ("a", "b")
SCHEMAS = tuple(
    Schema(json.dumps({"type": "record", "name": "R", "fields": [{"name": n, "type": "int", "default": 0}]}))
    for n in ("x", "y", "z")
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from(SUBJECTS), st.sampled_from(SCHEMAS)),
        st.tuples(st.just("delete"), st.sampled_from(SUBJECTS), st.booleans()),
        st.tuples(
            st.just("version"),
            st.sampled_from(SUBJECTS),
            st.sampled_from(("1", "2", "latest")),
            st.booleans(),
        ),
        st.tuples(st.just("level"), st.sampled_from((*SUBJECTS, None)), st.sampled_from(("FULL", "NONE"))),
        st.tuples(
            st.just("mode"), st.sampled_from((*SUBJECTS, None)), st.sampled_from(("READONLY", "READWRITE"))
        ),
        st.tuples(st.just("restart")),
        st.tuples(st.just("compact")),
    ),
    max_size=40,
)


def decide(store: Store, step: tuple[Any, ...]) -> tuple[Record, ...]:
    match step:
        case ("register", subject, schema):
            return changes.register(store, subject, schema).records
        case ("delete", subject, permanent):
            return changes.delete_subject(store, subject, permanent).records
        case ("version", subject, version, permanent):
            return changes.delete_version(store, subject, version, permanent).records
        case ("level", subject, level):
            return changes.set_level(subject, level).records
        case ("mode", subject, mode):
            return changes.set_mode(store, subject, mode, force=False).records
    return ()


def rebuilt(log: MemoryLog) -> Store:
    """A new process: the log from its start, then its own mark."""
    log.append((NOOP,))
    store = Store()
    for record in log.records:
        store.apply(*record)
    return store


def state(store: Store) -> Any:
    return store.subjects, store.levels, store.modes, {i: store.holders(i) for i in range(store.next_id())}


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_history_replays_to_the_same_state_and_never_gives_an_id_twice(
    steps: list[tuple[Any, ...]],
) -> None:
    log = MemoryLog()
    store = rebuilt(log)
    meaning: dict[int, str] = {}
    for step in steps:
        if step[0] == "compact":
            log.compact()
        if step[0] in ("compact", "restart"):
            before = state(store)
            store = rebuilt(log)
            assert state(store)[:3] == before[:3]
        try:
            records = decide(store, step)
        except Refused:
            continue
        for record in records:
            offset = log.append((record,))
            store.apply(*record, offset)
        for subject in store.subjects:
            for version in store.all(subject):
                assert meaning.setdefault(version.id, version.schema.identity) == version.schema.identity
    assert store.ignored == store.conflicts == 0


def test_a_log_of_confluents_own_server_is_understood() -> None:
    store = Store()
    schema = '{"type":"record","name":"R","fields":[{"name":"x","type":"int"}]}'
    log: list[tuple[str | None, str | None]] = [
        ('{"keytype":"NOOP","magic":0}', None),
        ('{"keytype":"CONFIG","subject":null,"magic":0}', '{"compatibilityLevel":"FULL"}'),
        (
            '{"keytype":"SCHEMA","subject":"t-value","version":1,"magic":1}',
            json.dumps({"subject": "t-value", "version": 1, "id": 7, "md5": "kept", "schema": schema}),
        ),
        ('{"keytype":"MODE","magic":0}', '{"mode":"READWRITE"}'),
        ('{"keytype":"CONTEXT","tenant":"default","context":".","magic":0}', '{"tenant":"default","context":"."}'),
        ('{"keytype":"SCHEMA","subject":"p-value","version":1,"magic":1}',
         '{"subject":"p-value","version":1,"id":8,"schemaType":"PROTOBUF","schema":"syntax = ...","deleted":false}'),
    ]  # fmt: skip
    for offset, (key, value) in enumerate(log):
        store.apply(key and key.encode(), value and value.encode(), offset)  # type: ignore[arg-type]
    assert store.level("t-value") == "FULL"
    assert store.holders(8)[0].schema.kind == "PROTOBUF"
    assert store.ignored == 1
    hidden = changes.delete_version(store, "t-value", "1", permanent=False).records[0]
    assert hidden[0] == b'{"keytype":"SCHEMA","subject":"t-value","version":1,"magic":1}'
    assert json.loads(hidden[1] or b"")["md5"] == "kept"
    assert changes.register(store, "u-value", Schema(schema)).answer == 7


@given(st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.binary()))
def test_rubbish_in_the_log_is_passed_over(key: bytes | None, value: bytes | None) -> None:
    store = Store()
    store.apply(key, value, 3)
    assert (store.applied, store.subjects) == (3, {})


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "7",
        '"x"',
        "{}",
        '{"schema":1,"id":1}',
        '{"schema":"x","id":"y"}',
        '{"schema":"x","id":1,"references":[{}]}',
    ],
)
def test_a_damaged_schema_record_is_counted_and_passed_over(value: str) -> None:
    store = Store()
    store.apply(b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', value.encode(), 0)
    assert (store.ignored, store.subjects) == (1, {})


def test_two_writers_are_noticed() -> None:
    store = Store()
    for version, schema in enumerate(SCHEMAS[:2], 1):
        value = {"subject": "s", "version": version, "id": 1, "schema": schema.text, "deleted": False}
        key = f'{{"keytype":"SCHEMA","subject":"s","version":{version},"magic":1}}'
        store.apply(key.encode(), json.dumps(value).encode(), version)
    assert store.conflicts == 1


def test_references_are_visited_once_each_however_many_ways_lead_there() -> None:
    """30 schemas of which each refers twice to the one before: 2^30 visits, and the registry answers nobody."""
    store = Store()

    def put(number: int, *references: tuple[str, int]) -> None:
        told = [{"name": name, "subject": f"s{of}", "version": 1} for name, of in references]
        value = {"subject": f"s{number}", "version": 1, "id": number + 1, "schema": f"text {number}"}
        key = {"keytype": "SCHEMA", "subject": f"s{number}", "version": 1, "magic": 1}
        store.apply(json.dumps(key).encode(), json.dumps({**value, "references": told}).encode(), number)

    put(0)
    for number in range(1, 64):
        put(number, ("A", number - 1), ("B", number - 1))
    assert store.resolve((Reference("A", "s40", 1),)) == [f"text {i}" for i in range(41)]
    assert len(store.resolve((Reference("A", "s63", 1),))) == 64
    put(64, ("A", 63))
    put(65, ("A", 65))
    for number in (64, 65, 66):  # too many, itself, none
        with pytest.raises(KeyError):
            store.resolve((Reference("A", f"s{number}", 1),))


@pytest.mark.parametrize("wanted", ["1" * 20, "00000000001" + "9" * 5_000, "2147483648"])
def test_a_version_of_any_length_is_refused_and_never_read(wanted: str) -> None:
    with pytest.raises(Refused) as problem:
        changes.find_version(Store(), "a", wanted)
    assert problem.value.code == 42202


@pytest.mark.parametrize(("number", "schema_id"), [(1, 1 << 31), (1 << 31, 1), (10**20, 10**20)])
def test_no_version_or_id_has_more_than_31_bits(number: int, schema_id: int) -> None:
    """One import of a larger id, and every later one was too large for the five bytes before a record."""
    store = Store()
    store.modes["a"] = "IMPORT"
    with pytest.raises(Refused) as problem:
        changes.register(store, "a", SCHEMAS[0], number, schema_id)
    assert problem.value.status == 422
    assert changes.register(store, "a", SCHEMAS[0], 1, (1 << 31) - 1).answer == (1 << 31) - 1
