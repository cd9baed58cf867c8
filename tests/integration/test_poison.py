"""Undecodable records on the real broker: all of them in the dead letters, as they came, and nothing else suffers.

The contract's raw schema is that of `records_of_all_kinds.FLAT`. Arrays, enums, wide unions and recursion come by an
older version of the schema (FLAT's fields, then RICH's), which a worker still decodes, resolved to today's columns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.schema_registry import Schema

from schemas import dlq
from schemas.contract import parse
from sluice.stack import provision
from streams.kafka.clients import registry
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read, unique
from tests.integration.share_help import DAY_MS, Opening, opening, working
from tests.unit import records_of_all_kinds as kinds

ROWS, CLOCK_MS = 20_000, 1_451_606_400_000
EXTRA_MIB = 50
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:poison.example
source: {{kind: csv, path: none.csv}}
event:
  key: key
  time: {{field: time, format: epoch_ms}}
  fields:
    key: {{type: string}}
    time: {{type: timestamp}}
    count: {{type: int}}
    level: {{type: float}}
    note: {{type: string}}
privacy:
  protects: household
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 3
  contribution: {{max: 1, of: [key, time], held_by: assumed, basis: test, attested_by: test}}
  fields:
    key: public
    time: {{time: 1s}}
    count: {{count: {{min: 0, max: 100, per_unit: 100}}}}
    level: {{number: {{min: 0, max: 10, step: 0.5, per_unit: 9.5}}}}
    note: {{category: {{members: [ok, bad], other: bad}}}}
terms: {{purpose: [test], for: 1d}}
"""


def older(flat: dict[str, Any]) -> dict[str, Any]:
    """FLAT's fields, then RICH's under names of their own."""
    more = [{**field, "name": f"rich_{field['name']}"} for field in kinds.RICH["fields"]]
    return {**flat, "fields": [*flat["fields"], *more]}


def poison(flat_id: int, rich_id: int, other_id: int) -> dict[str, tuple[bytes | None, str]]:
    """Every kind with this registry's ids; RICH's bodies stand behind a good FLAT one."""
    found: dict[str, tuple[bytes | None, str]] = {}
    for kind, (value, reason) in kinds.IN_FLAT.items():
        found[kind] = (value, reason)
        if value is not None and value[:1] == b"\x00" and len(value) >= 5 and reason != "unknown-schema-id":
            found[kind] = (kinds.framed(value[5:], flat_id), reason)
    found["id of another subject"] = (kinds.framed(kinds.flat(), other_id), "unknown-schema-id")
    for kind, (value, reason) in kinds.IN_RICH.items():
        if kind not in kinds.COMMON and value is not None:
            found[f"older: {kind}"] = (kinds.framed(kinds.flat() + value[5:], rich_id), reason)
    return found


@pytest.fixture
def opened(stack: RunningStack, tmp_path: Path) -> Opening:
    text = CONTRACT.format(name=unique("poison.share"))
    contract = parse(text)
    flat = [(field["name"], field["type"]) for field in contract.raw_schema["fields"]]
    assert flat == [(field["name"], field["type"]) for field in kinds.FLAT["fields"]]
    provision.register({f"{contract.topics.raw}-value": older(contract.raw_schema)}, stack.admin)
    return opening(stack, tmp_path, text)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_all_poison_is_dead_lettered_as_it_came_and_all_else_is_shared(opened: Opening) -> None:
    contract = opened.contract
    raw = f"{contract.topics.raw}-value"
    with registry(opened.stack.admin) as client:
        rich_id = client.lookup_schema(raw, Schema(json.dumps(older(contract.raw_schema)), "AVRO")).schema_id
    shared_id = opened.opened.schema_ids[f"{contract.topics.shared}-value"]
    assert rich_id is not None
    cases = poison(opened.raw_id, rich_id, shared_id)
    assert len(cases) >= 33

    def good(second: int) -> tuple[bytes, bytes]:
        time = CLOCK_MS + second * 1000
        if second % 100 == 1:  # a record of the older version
            return b"d-1", kinds.framed(kinds.flat(time=time) + kinds.rich(), rich_id)
        return b"d-1", kinds.framed(kinds.flat(time=time), opened.raw_id)

    mixed: list[tuple[bytes | None, bytes | None]] = [good(ROWS + row) for row in range(ROWS)]
    rows = sorted(np.random.default_rng(4).choice(ROWS, ROWS // 100 * 4, replace=False).tolist())
    sent: list[tuple[bytes | None, str]] = []
    for at, row in enumerate(rows):
        value, reason = list(cases.values())[at % len(cases)]
        mixed[row] = (f"poison-{at}".encode(), value)
        sent.append((value, reason))

    with working(opened) as worker:
        opened.send([(b"clock", opened.clock(CLOCK_MS + DAY_MS // 2)), *(good(row) for row in range(ROWS))])
        worker.wait([ROWS + 1])
        before = worker.peak_mib()
        opened.send(mixed, headers=[("trace", b"t-1")])
        worker.wait([2 * ROWS + 1])
        extra = worker.peak_mib() - before
        counts = worker.stop()

    assert extra <= EXTRA_MIB, f"{extra:.0f} MiB"
    assert counts["shared"] == 2 * ROWS - len(rows)
    assert sum(counts["rejected"].values()) == len(rows)
    assert counts["events"] == 2 * ROWS
    assert len(opened.out(contract.topics.shared)) == 2 * ROWS - len(rows)

    letters = read(opened.stack.admin, contract.topics.dlq)
    assert [(each.key(), each.value()) for each in letters] == [
        (f"poison-{at}".encode(), value) for at, (value, _) in enumerate(sent)
    ]
    offsets = [
        each.offset() for each in read(opened.stack.admin, contract.topics.raw) if each.key()[:6] == b"poison"
    ]
    for letter, (_, reason), offset in zip(letters, sent, offsets, strict=True):
        origin = dlq.origin(letter.headers()[:-1])
        assert origin["exception"] == reason
        assert origin["topic"] == contract.topics.raw
        assert (origin["partition"], origin["offset"]) == ("0", str(offset))
        assert letter.headers()[-1] == ("trace", b"t-1")


@pytest.mark.timeout(120)
def test_a_record_with_a_broken_key_or_time_is_a_dead_letter_too(opened: Opening) -> None:
    late = opened.encode({"key": "d-1", "time": CLOCK_MS + 5000, "count": 1, "level": 1.0, "note": "ok"})
    records: list[tuple[bytes | None, bytes | None]] = [
        (b"clock", opened.clock(CLOCK_MS)),
        (b"d-1", kinds.framed(kinds.flat(time=CLOCK_MS), opened.raw_id)),
        (b"d-2", kinds.framed(kinds.flat(time=CLOCK_MS + 1000), opened.raw_id)),
        (None, kinds.framed(kinds.flat(time=CLOCK_MS + 2000), opened.raw_id)),
        (b"d-1", kinds.framed(kinds.flat(time=1 << 60), opened.raw_id)),
        (b"d-1", late),
    ]
    with working(opened) as worker:
        opened.send(records)
        worker.wait([len(records)])
        counts = worker.stop()
    letters = read(opened.stack.admin, opened.contract.topics.dlq)
    assert [each.value() for each in letters] == [value for _, value in records[2:5]]
    assert [dlq.origin(each.headers())["exception"] for each in letters] == [
        "key-mismatch",
        "key-mismatch",
        "time-out-of-range",
    ]
    assert counts["shared"] == 2
