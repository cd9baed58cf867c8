"""A contract file: what is read from it, what is generated, and what must never be in the public part."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow.parquet as pq
import pytest

from schemas.contract import EXAMPLES, Contract, load, parse
from schemas.errors import ContractError
from schemas.rules import Count, Number

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
SHIPPED = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


def contract(*changes: tuple[str, str]) -> Contract:
    text = COUNTS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse(text, EXAMPLES)


def test_the_shipped_contract_says_what_the_design_says() -> None:
    counts = load("traffic.detector-counts")
    assert counts.topics.model_dump() == {
        kind: f"traffic.detector-counts.{kind}.v1" for kind in ("raw", "shared", "dlq", "ledger", "source")
    }
    assert counts.privacy.epsilon == Decimal("1.0")
    assert counts.privacy.contribution.max == 2
    vehicles = counts.privacy.fields["vehicles"]
    assert isinstance(vehicles, Count)
    assert (vehicles.nano_epsilon, vehicles.range, vehicles.sensitivity) == (500_000_000, 256, 1)
    assert counts.privacy.population == "did:web:roads.example.city/vehicle"
    assert counts.privacy.epoch.length_ms == 86_400_000
    assert counts.privacy.epoch.from_ms == 1_451_606_400_000
    assert (counts.keep.raw_ms, counts.keep.shared_ms) == (7 * 86_400_000, 365 * 86_400_000)
    assert [field.id for field in counts.event.fields.values()] == [1, 2, 3, 4]
    assert counts.event.fields["detector"].column == "detector"
    assert counts.privacy.unit == ()
    assert counts.warnings == ()
    assert len(COUNTS.splitlines()) <= 40


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_contract_loads_and_finds_its_sample(name: str) -> None:
    shipped = load(name)
    columns = set(pq.read_schema(shipped.source.path).names)
    named = {field.column for field in shipped.event.fields.values() if field.default is None}
    assert named <= columns
    assert shipped.event.key in shipped.event.fields


def test_one_shipped_contract_runs_on_diffprivlib() -> None:
    assert load("traffic.detector-counts-diffprivlib").privacy.engine == "diffprivlib"


def test_the_public_part_holds_nothing_raw() -> None:
    counts = contract()
    text = json.dumps(counts.public())
    for raw in ("observed", "5 Minutes", "Lane 1", "parquet", "pems", "d-401190", "column", "source"):
        assert raw not in text.replace(".source.", "")
    assert json.dumps(counts.shared_schema["sluice"]) == text
    told = counts.public()["fields"]["vehicles"]
    assert told["bounds"] == [0.0, 256.0]
    assert told["attribute"] == "intensity"
    assert told["law"]["nano_epsilon"] == 500_000_000
    assert counts.public()["time"] == {
        "field": "interval_start", "attribute": "dateObserved", "grid_ms": 300_000,
    }  # fmt: skip


def test_fields_that_are_counted_over_but_dropped_stay_unnamed() -> None:
    unit = contract(
        ("observed_pct:   {type: int", "plate: {type: string}\n    observed_pct:   {type: int"),
        ("protects: vehicle", "protects: vehicle\n  unit: [plate]"),
        ("held_by: assumed ", "held_by: ledger "),
        ("of: [detector, interval_start]", "of: [plate, interval_start]"),
        (", per_unit: 1}}", ", per_unit: 256}}\n    plate: drop"),
    )
    assert "plate" not in json.dumps(unit.public())
    assert unit.raw_schema["fields"][3] == {"name": "plate", "type": "string"}


def test_avro_types_of_raw_and_shared() -> None:
    counts = contract()
    types = {field["name"]: field["type"] for field in counts.raw_schema["fields"]}
    assert types["detector"] == "string"
    assert types["interval_start"] == {"type": "long", "logicalType": "timestamp-millis"}
    assert types["vehicles"] == types["observed_pct"] == ["null", "long"]
    fastavro.parse_schema(counts.raw_schema)
    fastavro.parse_schema(counts.shared_schema)
    assert counts.shared_schema["name"] == "TrafficFlowObserved"


def test_the_digest_of_the_terms_is_that_of_their_meaning() -> None:
    assert contract().terms_digest == contract(("0 EUR,", "0 EUR  ,")).terms_digest
    assert contract(("for: 90d", "for: 91d")).terms_digest != contract().terms_digest
    assert len(contract().terms_digest) == 64


def test_budget_splits_by_weight_and_rounds_down() -> None:
    two = contract(
        ("observed_pct:   drop ", "observed_pct:   {number: {min: 0, max: 100, step: 10, weight: 2}} "),
        ("max: 2 ", "max: 1 "),
    )
    budgets = [rule.nano_epsilon for rule in two.privacy.private_fields.values()]
    assert budgets == [333_333_333, 666_666_666]


def test_numbers_lie_on_their_grid() -> None:
    number = Number.model_validate({"min": -8, "max": 8, "step": 0.25})
    number._integral = False
    assert (number.lower_index, number.range, number.sensitivity) == (-32, 63, 63)
    assert number.bounds == (Decimal("-7.875"), Decimal("7.875"))
    whole = Number.model_validate({"min": 0, "max": 100, "step": 10, "default": 55})
    assert (whole.range, whole.middle, whole.default_index) == (10, Decimal("4.5"), 5)
    count = Count.model_validate({"min": 0, "max": 256, "output": "wide", "wide_by": 8})
    assert [int(bound) for bound in count.bounds] == [-8, 264]


def test_other_is_a_member() -> None:
    shared = contract(
        ("observed_pct:   {type: int", "weather: {type: string}\n    observed_pct:   {type: int"),
        (
            "observed_pct:   drop",
            "weather: {category: {members: [dry, wet], other: unknown}}\n    observed_pct: drop",
        ),
    )
    assert shared.public()["fields"]["weather"]["members"] == ["dry", "wet", "unknown"]


def test_open_mode_promises_nothing_and_says_so() -> None:
    text = COUNTS.replace("version:", "mode: open\nversion:", 1)
    start, end = text.index("privacy:"), text.index("shares:")
    fields = (
        "privacy:\n  fields:\n"
        "    {detector: public, interval_start: {time: 5min}, vehicles: public, observed_pct: drop}\n"
    )
    shared = parse(text[:start] + fields + text[end:], EXAMPLES)
    assert shared.privacy.private_fields == {}
    assert "nobody is protected" in shared.warnings[0]
    with pytest.raises(ContractError, match="protects nobody"):
        parse(text, EXAMPLES)


def test_a_relative_source_starts_at_the_contract(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(COUNTS.replace("../../producers/samples/pems.parquet", "a/b.parquet"))
    assert load(tmp_path / "mine.yaml").source.path == tmp_path / "a" / "b.parquet"


def test_a_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        load(tmp_path / "none.yaml")
    assert "traffic.detector-counts" in caught.value.remedy


def test_yaml_words_stay_words() -> None:
    norway = contract(("[EU, US]", "[EU, NO]"))
    assert norway.terms.region == ("EU", "NO")
