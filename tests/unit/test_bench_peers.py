"""The parts of bench-peers that are functions of values: what it says must follow from what was measured."""

from __future__ import annotations

import io
import json
import struct
from itertools import product
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from bench import bench_peers
from bench.passes import START_MS, events
from bench.peers import arena, content, engines, hop, jdk
from schemas.codec import Encoder


@pytest.mark.parametrize("size", [39, 400])
def test_events_are_as_long_as_asked_for(size: int) -> None:
    contract, _ = arena.contract_of("a_b", size, 8)
    batch = arena.filled(events(np.arange(100), np.zeros(100, np.int64), 1), size)
    assert {len(value) for value in Encoder(7, contract.raw_schema).encode(batch)} == {size}
    assert contract.partitions == 8
    assert contract.contract == "bench.a-b"


def shared(values: list[bytes], schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values]  # type: ignore[misc]


@pytest.mark.parametrize("size", [39, 400])
@pytest.mark.parametrize("codec", ["own", "fastavro"])
def test_a_python_peer_does_the_whole_hop(size: int, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a length, a time or an amount is not the usual one."""
    monkeypatch.setattr(hop, "draws", lambda count=hop.DRAWS: [2] * count)
    contract, _ = arena.contract_of("peer", size, 1)
    cards = ["a", "", "x" * 63, "x" * 64, "x" * 9000]
    times = [START_MS + 61_234, START_MS, -1, 1 << 41]
    sites = ["station", "", "s" * 63, "s" * 64, "é"]
    amounts = [0, 1, 63, 64, 65, 300, 997, 8191, 8192, 5_000_000, -1, -65, -9000, None]
    rows = list(product(cards, times, sites, amounts))
    batch = arena.filled(events(np.arange(len(rows)), np.zeros(len(rows), np.int64), 1), size)
    for name, column in {
        "card": pa.array([row[0] for row in rows]),
        "at": pa.array([row[1] for row in rows]).cast(pa.timestamp("ms", "UTC")),
        "site": pa.array([row[2] for row in rows]),
        "amount": pa.array([row[3] for row in rows], pa.int64()),
    }.items():
        batch = batch.set_column(batch.schema.names.index(name), name, column)
    told = {
        "codec": codec,
        "raw_id": 7,
        "shared_id": 9,
        "raw_schema": contract.raw_schema,
        "shared_schema": contract.shared_schema,
    }
    share = hop.function(told)
    values = Encoder(7, contract.raw_schema).encode(batch)
    for _ in range(2):  # the second time what was seen is remembered
        out = [share(value) for value in values]
        assert {value[:5] for value in out} == {struct.pack(">bI", 0, 9)}
        plain = json.loads(json.dumps(contract.shared_schema))
        plain["fields"][1]["type"] = "long"
        assert shared(out, plain) == [
            {
                "site": site,
                "dateObserved": time - time % 60_000,
                "intensity": min(max((amount or 0) + 2, 0), 1000) * 0.1,
            }
            for _, time, site, amount in rows
        ]
    with pytest.raises(ValueError, match="contract"):
        share(struct.pack(">bI", 0, 8) + values[0][5:])


def test_noise_of_the_peers_is_discrete_laplace() -> None:
    """P(k) of scale 1 is tanh(1/2) e^-|k|: .462 at 0, .17 at 1."""
    found = np.array(hop.draws(200_000))
    assert abs(float((found == 0).mean()) - 0.4621) < 0.01
    assert abs(float((found == 1).mean()) - 0.17) < 0.01
    assert abs(float(found.mean())) < 0.02


def test_what_was_not_measured_is_null_and_says_why() -> None:
    found = bench_peers.result(
        {
            "ours": {
                "events": 10,
                "events_per_s": 300,
                "cpu_s_per_million": 3.0,
                "broker_cpu_s_per_million": 1.0,
            },
            "kafka_streams": {"problem": "no JDK here"},
            "quix": {"events": 10, "events_per_s": 40, "cpu_s_per_million": 9.0},
        }
    )
    assert found["ratio_quix"] == 7.5
    assert found["ratio_kafka_streams"] is None
    assert found["ratio_faust"] is None
    assert found["p99_ms"] is None
    assert found["problems"] == {"kafka_streams": "no JDK here"}


def test_a_peer_that_loses_an_event_has_failed() -> None:
    (engine, *_) = engines.ENGINES
    arena._check(engine, 10, 10)
    with pytest.raises(arena.FailedError, match="9 records of 10"):
        arena._check(engine, 9, 10)


SCALED = struct.Struct("<d").pack


def outputs(changed: dict[int, tuple[bytes | None, bytes]] | None = None) -> list[tuple[bytes | None, bytes]]:
    """What a good engine makes of `written`, but for what `changed` says."""
    found: list[tuple[bytes | None, bytes]] = []
    for site, time in WRITTEN:
        head = struct.pack(">bI", 0, 9) + hop.zigzag(len(site)) + site.encode()
        found.append((site.encode(), head + hop.zigzag(time - time % 60_000) + SCALED(7 * 0.1)))
    for at, record in (changed or {}).items():
        found[at] = record
    return found


WRITTEN = [("s-1", START_MS), ("s-2", START_MS + 61_234), ("s-1", START_MS), ("s-2", START_MS)]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, None),
        ({0: (b"s-1", b"short")}, "1 values are not"),
        ({0: outputs()[1]}, "2 pairs"),  # one lost, one twice: the number is right
        ({0: (b"s-1", b"\0\0\0\0\x08" + outputs()[0][1][5:])}, "1 are new"),  # another schema
        (
            {1: (b"s-2", outputs()[1][1][:9] + hop.zigzag(START_MS + 61_234) + SCALED(0.7))},
            "1 are new",
        ),  # not rounded
        ({3: (b"s-1", outputs()[3][1])}, "a key"),
        ({3: (None, outputs()[3][1])}, "a key"),
        ({2: (b"s-1", outputs()[2][1][:-8] + SCALED(7.0 / 3))}, "an intensity"),
        ({2: (b"s-1", outputs()[2][1][:-8] + SCALED(100.1))}, "an intensity"),
    ],
)
def test_a_peer_that_brings_out_something_else_has_failed(
    changed: dict[int, tuple[bytes | None, bytes]], found: str | None
) -> None:
    columns = [
        pa.array([site for site, _ in WRITTEN]),
        pa.array([time for _, time in WRITTEN]).cast(pa.timestamp("ms", "UTC")),
    ]
    written = [pa.RecordBatch.from_arrays(columns, names=["site", "at"])]
    problem = content.problem(9, written, outputs(changed))
    assert problem is None if found is None else found in (problem or "")


def test_with_partitions_a_card_has_one_site() -> None:
    batch = pa.concat_batches([events(np.arange(3000), np.full(3000, slot), slot) for slot in range(2)])
    found = arena.at_home(batch)
    pairs = set(zip(found.column("card").to_pylist(), found.column("site").to_pylist(), strict=True))
    assert len(pairs) == 3000
    assert ("u-0002345", "station-000345") in pairs


def test_of_several_rounds_the_median_counts() -> None:
    rates = [30, 10, 20]
    found = bench_peers.median([{"events_per_s": rate, "cpu_s_per_million": rate / 10} for rate in rates])
    assert found == {"events_per_s": 20, "cpu_s_per_million": 2.0, "rounds": rates}
    assert bench_peers.median([{"events_per_s": 1}, {"problem": "lost one"}]) == {"problem": "lost one"}


def test_jars_of_kafka_streams_are_pinned() -> None:
    found = jdk.locked()
    assert {jar.coordinate.split(":")[1] for jar in found} == {"kafka-streams", "kafka-clients", "rocksdbjni"}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in found)
