"""share(): what goes out, what is denied, what is rejected; and that nothing in a record makes it raise."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streams.privacy.admission import REASONS
from streams.privacy.fields import CategoryField, NumberField
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, share
from tests.privacy_cases import (
    DAY_MS,
    EPOCH,
    FIELDS,
    MINUTE_MS,
    START_MS,
    UNIT_RULES,
    chain,
    contract,
    counter,
    part,
    raw,
    run,
    walk,
)

WALKS = contract()
PLAN = Plan.of(WALKS)
INF = math.inf


def one(row: dict[str, Any], clock: int = START_MS) -> Any:
    return share(raw(WALKS, [row], clock), PLAN, chain(), Ledger())


def test_shape_and_types_of_what_is_shared() -> None:
    row = walk(weight=2.25, mood="good", seen=START_MS + 90 * MINUTE_MS, note="secret")
    shared = one(row).shared
    assert shared.schema.names == ["person", "at", "place", "steps", "weight", "mood", "seen"]
    (out,) = shared.to_pylist()
    assert len(out["person"]) == 32
    assert set(out["person"]) <= set("0123456789abcdef")
    assert shared.column("at").cast(pa.int64()).to_pylist() == [START_MS]
    assert shared.column("seen").cast(pa.int64()).to_pylist() == [START_MS + 60 * MINUTE_MS]
    assert out["place"] == "park"
    assert 0 <= out["steps"] <= 20
    assert -7.75 <= out["weight"] <= 7.75
    assert (out["weight"] * 4) % 2 == 1  # the middle of a cell of .5
    assert out["mood"] in ("good", "bad", "unknown")
    assert "secret" not in str(shared.to_pylist())


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"weight": math.nan}, "weight.nan"),
        ({"weight": INF}, "weight.infinite"),
        ({"weight": -INF}, "weight.infinite"),
        ({"weight": 1e300}, "weight.above"),
        ({"weight": -8.001}, "weight.below"),
        ({"weight": None}, "weight.null"),
        ({"steps": 10**18}, "steps.above"),
        ({"steps": -(10**18)}, "steps.below"),
        ({"steps": None}, "steps.null"),
        ({"mood": "ecstatic"}, "mood.unknown"),
        ({"mood": ""}, "mood.unknown"),
        ({"mood": None}, "mood.null"),
    ],
)
def test_never_rejected_by_value(values: dict[str, Any], note: str) -> None:
    """Shared like any other, noised, charged; counted on the owner's side only."""
    full: dict[str, Any] = {"weight": 0.0, "mood": "good", "seen": START_MS}
    result = one(walk(**(full | values)))
    assert result.shared.num_rows == 1
    assert result.notes == {note: 1}
    assert len(result.changes) == 1
    (out,) = result.shared.to_pylist()
    assert out["steps"] is not None
    assert out["weight"] is not None
    assert out["mood"] is not None


def test_replaced_values_are_the_declared_ones() -> None:
    """Before noise: clamped to the nearest cell, or the declared default."""
    rows = [
        walk(weight=None, steps=None, mood=None),
        walk(weight=math.nan, steps=21, mood="x"),
        walk(weight=INF, steps=-1, mood="bad"),
        walk(weight=8.0, steps=20, mood="good"),
        walk(weight=-8.0, steps=0, mood="good"),
        walk(weight=-0.1, steps=3, mood="unknown"),
        walk(weight=-INF, steps=2**63 - 1, mood=""),
    ]
    columns = raw(WALKS, rows).columns
    found = {
        field.name: field.grid.index(columns.column(field.name), Counter()).tolist()
        for field in PLAN.fields
        if isinstance(field, NumberField | CategoryField)
    }
    assert found["weight"] == [18, 18, 31, 31, 0, 15, 0]
    assert found["steps"] == [3, 20, 0, 20, 0, 3, 20]
    assert found["mood"] == [2, 2, 1, 0, 0, 2, 2]


def test_wide_and_coarse_numbers() -> None:
    """Wide outputs leave the declared range by the margin and no further, so averages stay right."""
    rules = contract_rules("per_unit: 20, default: 3", "per_unit: 20, output: wide, wide_by: 80")
    wide = contract(rules=rules.replace("seen: {time: 1h}", "seen: drop"))
    rows = [walk(f"p{i}", steps=0) for i in range(4000)]
    steps = np.array(share(raw(wide, rows), Plan.of(wide), chain(), Ledger()).shared.column("steps"))
    assert (steps.min(), steps.max()) == (-80, 100)
    assert abs(float(steps.mean())) < 1.5
    coarse = contract(rules=contract_rules("count: {min: 0, max: 20, per_unit: 20, default: 3}", COARSE))
    shared = share(raw(coarse, rows), Plan.of(coarse), chain(), Ledger()).shared.column("steps")
    assert set(shared.to_pylist()) == {-8.0, -3.0, 2.0, 7.0}  # cells of five whole numbers, their means


COARSE = "number: {min: -10, max: 5, step: 5}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (walk() | {"person": None}, "null-key"),
        (walk() | {"at": None}, "null-time"),
        (walk() | {"at": 2**62}, "time-out-of-range"),
        (walk() | {"at": -(2**62)}, "time-out-of-range"),
    ],
)
def test_broken_key_and_time_are_rejected(row: dict[str, Any], reason: str) -> None:
    result = share(raw(WALKS, [walk("p0"), row, walk("p2")]), PLAN, chain(), Ledger())
    assert result.rejected == [(1, reason)]
    assert result.shared_rows.tolist() == [0, 2]
    assert result.denied == {}


def test_a_missing_unit_is_rejected() -> None:
    of = contract(key="place", unit="unit: [person, mood]", rules=UNIT_RULES)
    rows = [walk(mood="m"), walk(mood=None), walk(mood="")]
    result = share(raw(of, rows), Plan.of(of), chain(), Ledger())
    assert result.rejected == [(1, "null-unit")]
    assert result.shared_rows.tolist() == [0, 2]


def test_record_key_must_be_the_key_field() -> None:
    batch = raw(WALKS, [walk("p1"), walk("p2"), walk("p3")])
    keyed = RawBatch(batch.columns, [b"p1", b"p1", b"\xff"], batch.clock_ms)
    result = share(keyed, PLAN, chain(), Ledger())
    assert result.rejected == [(1, "key-mismatch"), (2, "key-mismatch")]
    good = RawBatch(batch.columns, [b"p1", b"p2", b"p3"], batch.clock_ms)
    assert share(good, PLAN, chain(), Ledger()).shared.num_rows == 3


@pytest.mark.parametrize(
    ("day", "clock", "reason"),
    [
        (0, -1, "no-clock"),
        (1, START_MS, None),
        (2, START_MS, "epoch-future"),
        (0, START_MS + 3 * DAY_MS, None),
        (0, START_MS + 3 * DAY_MS + 1, "epoch-closed"),
        (-31, START_MS - 31 * DAY_MS, "epoch-closed"),
        (-30, START_MS - 30 * DAY_MS, None),
    ],
)
def test_clock_and_epochs(day: int, clock: int, reason: str | None) -> None:
    """An epoch closes when its end plus `keep.raw` (2 days) lies before the clock; the chain begins 30 days back."""
    result = one(walk(at=START_MS + day * DAY_MS), clock)
    assert result.denied == ({reason: 1} if reason else {})
    assert result.denied_rows.tolist() == ([0] if reason else [])
    assert result.rejected == []


def test_the_oldest_open_epoch_agrees_with_what_is_denied() -> None:
    for clock in range(START_MS + 3 * DAY_MS - 2, START_MS + 3 * DAY_MS + 3):
        denied = bool(one(walk(), clock).denied)
        assert (WALKS.privacy.epoch.oldest_open(clock, WALKS.keep.raw_ms) > EPOCH) == denied


def test_slot_is_shared_once() -> None:
    keys, ledger = chain(), Ledger()
    first = run(raw(WALKS, [walk(slot=3), walk(slot=3, steps=9), walk("p2", slot=3)]), PLAN, keys, ledger)
    assert first.shared_rows.tolist() == [0, 2]
    again = run(raw(WALKS, [walk(slot=3), walk(slot=3, steps=8), walk(slot=4)]), PLAN, keys, ledger)
    assert again.denied == {"slot-used": 2}
    assert again.shared_rows.tolist() == [2]
    late = run(raw(WALKS, [walk(slot=100), walk(slot=36), walk(slot=37)]), PLAN, keys, ledger)
    assert late.denied == {"slot-too-old": 1}
    many = run(raw(WALKS, [walk(slot=200 + i) for i in range(9)]), PLAN, keys, ledger)
    assert many.denied == {"contribution-spent": 5}
    assert many.shared_rows.tolist() == [0, 1, 2, 3]  # with the four before, m = 8
    assert set(REASONS.values()) == {"slot-used", "slot-too-old", "contribution-spent", "epoch-exhausted"}


def test_where_the_bound_is_assumed_only_slots_count() -> None:
    of = counter()
    rows = [{"detector": "d", "at": START_MS + i * 5 * MINUTE_MS, "vehicles": 9} for i in range(288)]
    result = share(raw(of, [*rows, rows[-1], rows[0]]), Plan.of(of), chain(), Ledger())
    assert result.shared.num_rows == 288
    assert result.denied == {"slot-used": 1, "slot-too-old": 1}


def test_replay_gives_the_same_bytes_and_another_slot_value_field_or_key_does_not() -> None:
    rows = [walk(f"p{i}", slot=i % 7, steps=i % 20, weight=i % 8) for i in range(300)]
    first = share(raw(WALKS, rows), PLAN, chain(), Ledger())
    again = share(raw(WALKS, rows), PLAN, chain(), Ledger())
    assert first.shared.equals(again.shared)
    assert Ledger().records(first.changes) == Ledger().records(again.changes)
    moved = share(raw(WALKS, [row | {"at": row["at"] + MINUTE_MS} for row in rows]), PLAN, chain(), Ledger())
    other = share(raw(WALKS, [row | {"steps": row["steps"] + 1} for row in rows]), PLAN, chain(), Ledger())
    root = KeyChain.of_root(chain().population, DAY_MS, 0, EPOCH, bytes(32))
    rekeyed = share(raw(WALKS, rows), PLAN, root, Ledger())
    assert noise(first, rows) != noise(moved, rows)
    assert noise(first, rows) != noise(other, [row | {"steps": row["steps"] + 1} for row in rows])
    assert noise(first, rows) != noise(rekeyed, rows)
    assert first.shared.column("weight") != moved.shared.column("weight")
    assert first.shared.column("weight") == other.shared.column(
        "weight"
    )  # another field's value changes nothing


def noise(result: Any, rows: list[dict[str, Any]]) -> list[int]:
    shared = result.shared.column("steps").to_pylist()
    return [s - r["steps"] for s, r in zip(shared, rows, strict=True)]


def test_pseudonyms_live_for_one_epoch() -> None:
    rows = [walk("ann"), walk("bob"), walk("ann", slot=1), walk("ann", at=START_MS + DAY_MS)]
    names = share(raw(WALKS, rows), PLAN, chain(), Ledger()).shared.column("person").to_pylist()
    assert names[0] == names[2]
    assert len({names[0], names[1], names[3]}) == 3


def test_a_changed_privacy_section_waits_for_the_next_epoch() -> None:
    keys, ledger = chain(), Ledger()
    run(raw(WALKS, [walk()]), PLAN, keys, ledger)
    changed = contract(epsilon="12")
    rows = [walk(slot=1), walk(slot=2, at=START_MS + DAY_MS)]
    result = run(raw(changed, rows), Plan.of(changed), keys, ledger)
    assert result.denied == {"privacy-changed": 1}
    assert result.shared_rows.tolist() == [1]
    back = run(raw(WALKS, [walk(slot=3), walk(at=START_MS + DAY_MS + MINUTE_MS)]), PLAN, keys, ledger)
    assert back.denied == {"privacy-changed": 1}
    assert back.shared_rows.tolist() == [0]


def test_other_keys_and_partition_counts_are_denied_within_an_epoch() -> None:
    ledger = Ledger()
    run(raw(WALKS, [walk()]), PLAN, chain(), ledger)
    other = KeyChain.of_root(chain().population, DAY_MS, 0, EPOCH, bytes(32))
    assert share(raw(WALKS, [walk(slot=1)]), PLAN, other, ledger).denied == {"key-changed": 1}
    wider = contract(top="partitions: 2")
    assert share(raw(wider, [walk(slot=1)]), Plan.of(wider), chain(), ledger).denied == {
        "partitions-changed": 1
    }


def test_what_changes_the_canonical_section_and_what_does_not() -> None:
    base = PLAN.c_digest
    assert Plan.of(contract(top="about: other words")).c_digest == base
    changed = [
        contract(epsilon="25"),
        contract(held="{max: 7, of: [at], held_by: ledger}"),
        contract(rules=contract_rules("default: 3", "default: 4")),
        contract(rules=contract_rules("max: 20, per_unit: 20", "max: 19, per_unit: 19")),
        contract(rules=contract_rules("other: unknown", "other: other")),
        contract(rules=contract_rules("time: 1h", "time: 2h")),
        contract(rules=contract_rules("place: public", "place: drop")),
        contract(more="normalise: [nfc, lower]"),
        contract(more="engine: diffprivlib", rules=contract_rules("[good, bad]", "[good]")),
        contract(fields=FIELDS.replace("at: {type: timestamp}", "at: {type: timestamp, column: then}")),
        contract(fields=FIELDS.replace("person: {type: string}", "person: {type: string, column: who}")),
        contract(time="format: iso8601, zone: UTC"),
        contract(time="format: iso8601, zone: Europe/Berlin"),  # moves every record to another slot
    ]
    assert len({base, *(Plan.of(of).c_digest for of in changed)}) == 14
    other = contract(fields=FIELDS.replace("steps: {type: int}", "steps: {type: int, column: walked}"))
    assert Plan.of(other).c_digest == base  # its slots stay what they were
    assert PLAN.canonical.isascii()
    assert b" " not in PLAN.canonical
    assert b"." not in PLAN.canonical.replace(b'"0.5"', b"").replace(b'"0.25"', b"")  # no floats


def contract_rules(old: str, new: str) -> str:
    from tests.privacy_cases import RULES

    assert old in RULES
    return RULES.replace(old, new)


def test_empty_batches_and_batches_without_a_survivor() -> None:
    keys, ledger = chain(), Ledger()
    for rows, clock in (([], START_MS), ([walk(), walk()], -1), ([walk() | {"person": None}], START_MS)):
        result = run(raw(WALKS, rows, clock), PLAN, keys, ledger)
        assert result.shared.num_rows == 0
        assert result.shared.schema.names[0] == "person"
        assert len(result.changes) == 0
        assert ledger.records(result.changes) == []


def test_open_mode_shares_as_it_is() -> None:
    of = open_contract()
    rows = [walk(steps=10**9), walk(steps=10**9), walk(steps=None), walk() | {"at": None}]
    result = share(raw(of, rows, -1), Plan.of(of), None, Ledger())
    assert result.shared.to_pydict()["steps"] == [10**9, 10**9, None]
    assert result.rejected == [(3, "null-time")]
    with pytest.raises(ValueError, match="keys"):
        share(raw(WALKS, rows), PLAN, None, Ledger())


def open_contract() -> Any:
    from schemas.contract import parse

    return parse(
        """
contract: test.open
version: 1.0.0
owner: did:web:test.example
mode: open
source: {kind: csv, path: none.csv}
event:
  key: person
  time: {field: at, format: epoch_ms}
  fields:
    person: {type: string}
    at: {type: timestamp}
    steps: {type: int}
privacy:
  fields: {person: public, at: {time: 1min}, steps: public}
terms: {purpose: [testing], for: 1d}
"""
    )


def test_keys_of_other_types() -> None:
    of = counter(fields="\n    detector: {type: int}\n    at: {type: timestamp}\n    vehicles: {type: int}\n")
    rows = [{"detector": i, "at": START_MS, "vehicles": i} for i in (7, -3, 7)]
    batch = raw(of, rows)
    keyed = RawBatch(batch.columns, [b"7", b"-3", b"7"], batch.clock_ms)
    result = share(keyed, Plan.of(of), chain(), Ledger())
    assert result.shared_rows.tolist() == [0, 1]


def test_slices_share_like_the_whole() -> None:
    rows = [
        walk(f"p{i}", slot=i, weight=None if i % 3 else 1.0, mood=None if i % 2 else "bad") for i in range(40)
    ]
    batch = raw(WALKS, rows)
    whole = share(batch, PLAN, chain(), Ledger())
    piece = share(part(batch, 11, 29), PLAN, chain(), Ledger())
    assert piece.shared.equals(whole.shared.slice(11, 18))


def test_raw_never_shows_in_a_repr() -> None:
    batch = RawBatch(raw(WALKS, [walk("very secret person")]).columns, [b"very secret person"], np.array([1]))
    assert "secret" not in repr(batch)
