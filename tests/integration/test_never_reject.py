"""Never reject by value: what a private field holds cannot keep its record from being shared.

A missing shared record would tell the value. NaN, infinity, out of range, null and unknown members become the clamp,
the declared default or the declared `other`, are noised like any value, and are counted on the owner's side only.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import fastavro
import pytest

from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import unique
from tests.integration.share_help import DAY_MS, START_MS, opening, working

CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:values.example
source: {{kind: csv, path: none.csv}}
event:
  key: meter
  time: {{field: at, format: epoch_ms}}
  fields:
    meter: {{type: string}}
    at: {{type: timestamp}}
    watts: {{type: float}}
    people: {{type: int}}
    tariff: {{type: string}}
privacy:
  protects: household
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 3
  contribution: {{max: 1, of: [meter, at], held_by: assumed, basis: test, attested_by: test}}
  fields:
    meter: public
    at: {{time: 1min}}
    watts: {{number: {{min: 0, max: 100, step: 1, per_unit: 99, default: 10}}}}
    people: {{count: {{min: 0, max: 8, per_unit: 8}}}}
    tariff: {{category: {{members: [day, night], other: night}}}}
terms: {{purpose: [test], for: 1d}}
"""
ODD: list[dict[str, Any]] = [
    {"watts": math.nan},
    {"watts": math.inf},
    {"watts": -math.inf},
    {"watts": 1e308},
    {"watts": -5.0},
    {"watts": -0.0},
    {"watts": 5e-324},
    {"watts": None},
    {"people": (1 << 63) - 1},
    {"people": -(1 << 63)},
    {"people": 9},
    {"people": None},
    {"tariff": "weekend"},
    {"tariff": ""},
    {"tariff": "\u0000\U0010ffff"},
    {"tariff": "x" * 10_000},
    {"tariff": None},
    {"watts": None, "people": None, "tariff": None},
]
TURNS = 20


@pytest.mark.timeout(120)
def test_no_value_keeps_a_record_from_being_shared(stack: RunningStack, tmp_path: Path) -> None:
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("values.share")))
    records: list[tuple[bytes | None, bytes | None]] = [(b"clock", opened.clock(START_MS + DAY_MS // 2))]
    for row, odd in enumerate(ODD * TURNS):
        plain = {"watts": 40.0, "people": 2, "tariff": "day"}
        event = {"meter": "m-1", "at": START_MS + row * 60_000, **plain, **odd}
        records.append((b"m-1", opened.encode(event)))
    with working(opened) as worker:
        opened.send(records)
        worker.wait([len(records)])
        counts = worker.stop()
        log = worker.log.read_text()

    total = len(ODD) * TURNS
    assert (counts["events"], counts["shared"]) == (total, total)
    assert counts["denied"] == {}
    assert counts["rejected"] == {}
    noted = {name: count // TURNS for name, count in counts["notes"].items()}
    assert sum(noted.values()) >= len(ODD) - 3  # the zeros and the denormal are in range
    assert opened.out(opened.contract.topics.dlq) == []

    schema = fastavro.parse_schema(json.loads(json.dumps(opened.contract.shared_schema)))
    shared = [
        fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        for _, value, _ in opened.out(opened.contract.topics.shared)
    ]
    assert len(shared) == total
    for found in shared:
        assert isinstance(found, dict)
        assert found["meter"] == "m-1"
        assert 0 <= found["watts"] <= 101
        assert 0 <= found["people"] <= 8
        assert found["tariff"] in {"day", "night"}
    assert len({found["at"] for found in shared}) == total  # type: ignore[index, call-overload]
    for word in ("weekend", "nan", "inf,", "1e+308", "x" * 50):
        assert word not in log.lower(), "a value stands in the log"


@pytest.mark.timeout(120)
def test_what_is_shared_of_an_odd_value_is_what_its_clamp_would_give(
    stack: RunningStack, tmp_path: Path
) -> None:
    """The same draw on the same clamped value: nobody on the shared side can tell NaN from the default."""
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("values.share")))
    slots = range(40)
    odd = [{"watts": math.nan, "people": 1 << 40, "tariff": "weekend"} for _ in slots]
    clamped = [{"watts": 10.0, "people": 8, "tariff": "night"} for _ in slots]
    outs = []
    for values in (odd, clamped):
        records: list[tuple[bytes | None, bytes | None]] = [(b"clock", opened.clock(START_MS + DAY_MS // 2))]
        records += [
            (b"m-1", opened.encode({"meter": "m-1", "at": START_MS + slot * 60_000, **value}))
            for slot, value in zip(slots, values, strict=True)
        ]
        opened.send(records)
        with working(opened) as worker:
            worker.wait([opened_end(opened)])
            worker.stop()
        outs.append(opened.out(opened.contract.topics.shared))
        opened.forget()
        truncate(opened)
    assert len(outs[0]) == len(slots)
    assert outs[0] == outs[1]


def opened_end(opened: Any) -> int:
    """Behind the last record of raw; the commit marker comes after it."""
    from tests.integration.kafka_help import end

    return end(opened.stack.admin, opened.contract.topics.raw) - 1


def truncate(opened: Any) -> None:
    """Raw starts behind what it holds now."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    client = AdminClient(opened.stack.admin.settings())
    for deleted in client.delete_records([TopicPartition(opened.contract.topics.raw, 0, -1)]).values():
        deleted.result(30)
