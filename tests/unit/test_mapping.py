"""Privatized columns to the target model: valid against the official schema, nothing but what the map
names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
from referencing import Registry, Resource

from schemas.codec import Decoder, Encoder
from schemas.contract import EXAMPLES, load, parse
from schemas.mapping import Mapping, iso

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
STANDARDS = Path(__file__).parents[3] / "shared" / "standards" / "smart-data-models"


def privatized(rows: int = 3) -> pa.RecordBatch:
    start = 1_451_894_400_000
    return pa.record_batch(
        {
            "vehicles": pa.array(np.arange(rows), pa.int64()),
            "interval_start": pa.array(start + 300_000 * np.arange(rows), pa.timestamp("ms")),
            "detector": pa.array(["d-401190"] * rows),
        }
    )


def mapped(map_: str, batch: pa.RecordBatch | None = None) -> list[dict[str, Any]]:
    start, end = COUNTS.index("  map:"), COUNTS.index("terms:")
    contract = parse(COUNTS[:start] + f"  map: {{time: interval_start, {map_}}}\n" + COUNTS[end:], EXAMPLES)
    mapping = Mapping(contract)
    made = mapping.apply(batch or privatized())
    values = Encoder(1, mapping.avro_schema).encode(made)  # every target can be written ...
    decoded = Decoder({1: mapping.avro_schema}).decode(values)
    assert decoded.poison == []  # ... and read
    return [mapping.json_view(record) for record in made.to_pylist()]


def validator() -> jsonschema.protocols.Validator:
    """The official schema, its references found in the folder of standards, never over the network."""
    if not STANDARDS.exists():
        pytest.skip("the official schemas are not on this machine")
    schemas = [json.loads(path.read_text(encoding="utf-8")) for path in STANDARDS.glob("*schema.json")]
    pairs = [(schema["$id"], Resource.from_contents(schema)) for schema in schemas]
    by_id = {schema["$id"].rsplit("/", 2)[-2]: schema for schema in schemas}
    common = next(s for s in schemas if "GSMA-Commons" in s.get("definitions", {}))
    named = (
        "https://smart-data-models.github.io/data-models/common-schema.json",
        Resource.from_contents(common),
    )
    registry: Registry[Any] = Registry().with_resources([*pairs, named])
    return jsonschema.Draft202012Validator(
        by_id["TrafficFlowObserved"], registry=registry, format_checker=jsonschema.FormatChecker()
    )


@pytest.mark.parametrize("name", ["traffic.detector-counts", "traffic.detector-counts-diffprivlib"])
def test_valid_against_the_official_schema(name: str) -> None:
    contract = load(name)
    mapping = Mapping(contract)
    official = validator()
    with pytest.raises(jsonschema.ValidationError):
        official.validate({"id": "x", "type": "TrafficFlowObserved", "dateObserved": "now", "intensity": -1})
    values = Encoder(3, mapping.avro_schema).encode(mapping.apply(privatized(300)))
    decoded = Decoder({3: contract.shared_schema}).decode(values)
    assert decoded.batch.num_rows == 300
    for record in decoded.batch.to_pylist():
        official.validate(json.loads(json.dumps(mapping.json_view(record))))


def test_the_shipped_mapping_word_by_word() -> None:
    mapping = Mapping(load("traffic.detector-counts"))
    record = mapping.apply(privatized(1)).to_pylist()[0]
    assert mapping.json_view(record) == {
        "id": "urn:ngsi-ld:TrafficFlowObserved:d-401190:2016-01-04T08:00:00Z",
        "type": "TrafficFlowObserved",
        "dateObserved": "2016-01-04T08:00:00Z",
        "intensity": 0,
    }


@pytest.mark.parametrize(
    ("map_", "expected"),
    [
        ("n: vehicles", 2),
        ("n: {from: vehicles, scale: 0.5, offset: 1}", 2.0),
        ("n: {from: detector, table: {d-401190: north}, else: unknown}", "north"),
        ("n: {from: detector, table: {d-1: north}, else: unknown}", "unknown"),
        ("n: {constant: forward}", "forward"),
        ("n: {constant: 1}", 1),
        ("n: {constant: 1.5}", 1.5),
        ("n: {constant: true}", True),
        ('n: "{detector}/{vehicles}!"', "d-401190/2!"),
        ("n: {nest: {type: {constant: Count}, value: vehicles}}", {"type": "Count", "value": 2}),
        ("n: {nest: {at: interval_start}}", {"at": "2016-01-04T08:10:00Z"}),
        ("n: {list: vehicles}", [2]),
        ("n: {list: {nest: {v: vehicles}}}", [{"v": 2}]),
        ("n: {nest: {inner: {nest: {v: {list: detector}}}}}", {"inner": {"v": ["d-401190"]}}),
    ],
)
def test_operators(map_: str, expected: object) -> None:
    assert mapped(map_)[2]["n"] == expected


def test_a_whole_number_beyond_a_doubles_is_scaled_to_the_nearest() -> None:
    """One public count of 2^53 + 1 made the whole batch fail."""
    given = pa.array([(1 << 53) + 1, -(1 << 63), (1 << 63) - 1], pa.int64())
    found = mapped(
        "n: {from: vehicles, scale: 0.5, offset: 0}", privatized().set_column(0, "vehicles", given)
    )
    assert [row["n"] for row in found] == [2.0**52, -(2.0**62), 2.0**62]


def test_without_a_map_every_shared_field_keeps_its_name() -> None:
    start, end = COUNTS.index("shares:"), COUNTS.index("terms:")
    mapping = Mapping(parse(COUNTS[:start] + COUNTS[end:], EXAMPLES))
    made = mapping.apply(privatized(2))
    assert made.schema.names == ["detector", "interval_start", "vehicles"]
    assert "type" not in mapping.json_view(made.to_pylist()[0])


def test_a_raw_column_beside_the_privatized_ones_goes_nowhere() -> None:
    batch = privatized(2).append_column("observed_pct", pa.array([98, 99]))
    assert "98" not in json.dumps(
        Mapping(load("traffic.detector-counts")).apply(batch).to_pylist(), default=str
    )


def test_a_missing_public_value_is_left_out_of_the_json() -> None:
    text = COUNTS.replace("observed_pct:   drop ", "observed_pct: {public: {because: device}} ").replace(
        "intensity:    vehicles", "intensity: vehicles\n    quality: observed_pct"
    )
    mapping = Mapping(parse(text, EXAMPLES))
    batch = privatized(2).append_column("observed_pct", pa.array([None, 99], pa.int64()))
    first, second = (mapping.json_view(record) for record in mapping.apply(batch).to_pylist())
    assert "quality" not in first
    assert second["quality"] == 99


def test_the_map_is_pure_and_takes_empty_batches() -> None:
    mapping = Mapping(load("traffic.detector-counts"))
    assert mapping.apply(privatized(5)).equals(mapping.apply(privatized(5)))
    assert mapping.apply(privatized(0)).num_rows == 0


def test_times_are_total() -> None:
    assert iso(1_451_894_400_123) == "2016-01-04T08:00:00.123Z"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"
    assert iso(1 << 62) == "9999-12-31T23:59:59.999Z"
    assert iso(-(1 << 62)) == "0001-01-01T00:00:00Z"
    when = datetime(2016, 1, 4, 8, tzinfo=UTC)
    assert Mapping(load("traffic.detector-counts")).json_view(
        {"id": "a", "dateObserved": when, "intensity": 1}
    )["dateObserved"] == iso(round(when.timestamp() * 1000))
