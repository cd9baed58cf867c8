"""The hop from raw to shared: the same bytes whatever the batches, and a state that survives its changelog."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from producers.encode import encoder
from schemas.codec import CLOCK, Decoder, Encoder
from schemas.contract import parse
from streams.agents.hop import Hop
from streams.agents.partition import PartitionState
from streams.kafka.records import Records, Source
from streams.privacy.keys import KeyChain
from streams.privacy.plan import Plan

DAY_MS = 86_400_000
START_MS = 16_804 * DAY_MS
CONTRACT = parse("""
contract: unit.hop
version: 1.0.0
owner: did:web:hop.example
source: {kind: csv, path: none.csv}
event:
  key: site
  time: {field: at, format: epoch_ms}
  fields:
    site: {type: string}
    at: {type: timestamp}
    card: {type: string}
    amount: {type: int}
privacy:
  protects: person
  epoch: {length: day, from: 2016-01-01}
  epsilon: 4
  contribution: {max: 4, of: [at], held_by: ledger}
  unit: [card]
  fields:
    site: public
    at: {time: 1min}
    card: drop
    amount: {count: {min: 0, max: 100, per_unit: 100}}
terms: {purpose: [test], for: 1d}
""")
KEYS = KeyChain.of_root("hop", DAY_MS, 0, 16_000, bytes(range(32)))


class Message:
    """What `Records` needs of a Kafka message."""

    def __init__(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        self._key, self._value, self._offset = key, value, offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 2, 0

    def headers(self) -> Any:
        return [("trace", b"t")]


def log(count: int) -> list[Message]:
    """Events, some in a used slot, some beyond m, some poison; a clock that starts late and moves over midnight."""
    rng, encode, clock = random.Random(3), encoder(1, CONTRACT.raw_schema), encoder(2, dict(CLOCK))
    found = []
    for offset in range(count):
        value: bytes | None
        if offset % 50 == 10:
            value = clock({"clock_ms": START_MS + DAY_MS // 2 + offset * DAY_MS // 300})
        else:
            day = rng.randrange(-9, 5)
            at = START_MS + day * DAY_MS + rng.randrange(6) * 60_000
            card, amount = f"c-{rng.randrange(12)}", rng.randrange(-5, 120)
            value = encode({"site": "s-1", "at": at, "card": card, "amount": amount})
        if rng.random() < 0.05:
            value = rng.choice([None, b"", b"{}", (value or b"")[:-1], b"\x00\x00\x00\x00\x09abc"])
        found.append(Message(b"s-1" if rng.random() < 0.98 else None, value, offset))
    return found


def share(
    messages: list[Message], sizes: Iterable[int], *, restart: bool = False
) -> tuple[dict[str, Any], Any]:
    """Everything that came out, by topic, and the counts; with `restart` the state goes through its changelog."""
    hop = Hop(CONTRACT, Plan.of(CONTRACT), KEYS, Decoder({1: CONTRACT.raw_schema}, 2, 1), encoder_of_shared())
    changelog: list[tuple[bytes, bytes | None]] = []
    state, at = PartitionState(), 0
    out: dict[str, list[Any]] = {CONTRACT.topics.shared: [], CONTRACT.topics.dlq: []}
    for size in sizes:
        part = messages[at : at + size]
        at += size
        if not part:
            break
        start = part[0].offset()
        records = Records(Source(CONTRACT.topics.raw, 0), part, start=start, next=start + len(part))
        result = hop.share(hop.decode(records), state)
        changelog += result.changes
        for output in result.outputs:
            headers = output.headers or [None] * len(output.values)
            out[output.topic] += zip(
                output.keys or [None] * len(output.values), output.values, headers, strict=True
            )
        if restart:
            state = PartitionState.restore(changelog)
    assert at >= len(messages)
    return out, state.counts


def encoder_of_shared() -> Encoder:
    return Encoder(3, CONTRACT.shared_schema)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100, 499])
def test_any_split_gives_the_same_bytes_and_counts(size: int, restart: bool) -> None:
    messages = log(600)
    whole, counts = share(messages, [600])
    assert {"no-clock", "slot-used", "contribution-spent", "epoch-closed", "epoch-future"} <= set(
        counts.denied
    )
    assert counts.events == counts.shared + sum(counts.denied.values()) + sum(counts.rejected.values())
    assert counts.events + counts.clocks == 600
    assert counts.shared == len(whole[CONTRACT.topics.shared])
    assert sum(counts.rejected.values()) == len(whole[CONTRACT.topics.dlq])
    assert share(messages, [size] * 600, restart=restart) == (whole, counts)


def test_a_doomed_record_is_a_dead_letter_and_no_other_row_changes() -> None:
    messages = log(60)
    hop = Hop(CONTRACT, Plan.of(CONTRACT), KEYS, Decoder({1: CONTRACT.raw_schema}, 2, 1), encoder_of_shared())
    source = Source(CONTRACT.topics.raw, 0)
    records = Records(source, messages, start=0, next=60, doomed=frozenset({33}))
    result = hop.share(hop.decode(records), PartitionState())
    letters = next(output for output in result.outputs if output.topic == CONTRACT.topics.dlq)
    assert messages[33].value() in letters.values
    reasons = [dict(head or ())["__streams.errors.exception"] for head in letters.headers or ()]
    assert reasons.count(b"handler-failed") == 1
