"""Reads everything at the end, with its own few lines of decoding, and lets the oracle compare."""

from __future__ import annotations

import hmac
import json
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.contract import Contract
from streams.kafka.clients import Connection, logger
from streams.privacy.keys import KeyChain
from tests.chaos.events import who
from tests.chaos.oracle import Oracle, Rows, Tally, Trace, Verdict

STABLE_SECONDS = 25.0  # twice the transaction timeout, and a little
POSITION = b"\x00position/"
ROW = struct.Struct(">16sqQI")


def number_of(value: bytes) -> int:
    """The first field of a framed event: a long behind the branch of a union, in Avro's zigzag."""
    shift = number = 0
    for byte in value[6:16]:
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number >> 1 ^ -(number & 1)


class UnstableError(Exception):
    """A topic's last stable offset stands still below its end."""


def records(
    connection: Connection, topic: str, partitions: int, *, committed: bool, tail: int | None = None
) -> Iterator[Any]:
    """All messages up to the ends as of now, or those of the last `tail` offsets of a partition. Raises UnstableError
    where an open transaction hides some of them."""
    consumer = Consumer(
        connection.settings(
            group_id="chaos-audit",
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_partition_eof=True,
            enable_auto_commit=False,
            fetch_wait_max_ms=50,
        ),
        logger=logger(),
    )
    probe = Consumer(
        connection.settings(group_id="chaos-audit", isolation_level="read_uncommitted"), logger=logger()
    )
    try:
        ends = {
            each: probe.get_watermark_offsets(TopicPartition(topic, each), timeout=30, cached=False)
            for each in range(partitions)
        }
        missing = {each: high for each, (low, high) in ends.items() if high > low}
        starts = {
            each: ends[each][0] if tail is None else max(ends[each][0], ends[each][1] - tail)
            for each in missing
        }
        consumer.assign([TopicPartition(topic, *start) for start in starts.items()])
        progress = time.monotonic()
        while missing:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    progress = time.monotonic()
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    partition = int(message.partition() or 0)
                    if int(message.offset() or 0) >= missing.get(partition, 0):
                        missing.pop(partition, None)
            if time.monotonic() - progress > STABLE_SECONDS:
                raise UnstableError(", ".join(f"{topic}[{each}]" for each in sorted(missing)))
    finally:
        probe.close()
        consumer.close()


@dataclass(slots=True)
class Ledgers:
    """What the changelogs say at their ends."""

    rows: Rows = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    ahead: list[tuple[tuple[int, int], int]] = field(default_factory=list)


class Audit:
    """`report()` compares all topics of a contract with what the oracle was told."""

    def __init__(
        self, contract: Contract, admin: Connection, keys: KeyChain, oracle: Oracle, units: int
    ) -> None:
        self._contract, self._admin, self._oracle = contract, admin, oracle
        self._clock_id: int | None = None
        epochs = {epoch for epoch, _ in oracle.model.rows}
        fields = [
            b"".join(len(text).to_bytes(4, "big") + text.encode() for text in who(unit))
            for unit in range(units)
        ]
        self._who: dict[tuple[int, bytes], tuple[int, int]] = {}
        for epoch in epochs:
            key = keys.unit_key(epoch)
            for unit, text in enumerate(fields):
                tag = hmac.digest(key, text, "sha256")[:16]
                self._who[epoch, tag] = epoch, unit
        self.torn: set[str] = set()
        self.shared: Callable[[int, int, int], None] = lambda partition, offset, number: None

    def report(self, clock_id: int) -> tuple[Verdict, int]:
        """The verdict over raw, shared and dead letters; errors of the ledger. `torn` names partitions; `shared` is
        told of every committed record of that topic: partition, offset, number."""
        self._clock_id = clock_id
        oracle, topics = self._oracle, self._contract.topics
        raw = self._trace(topics.raw, self._raw)
        for partition, found in raw.committed.items():
            poison = [number for number in found if number < 0]
            oracle.poison(partition, dict.fromkeys(poison))
        verdict = raw.compare(oracle.raw, oracle.key)
        verdict += self._trace(topics.shared, lambda each: number_of(each.value()), self.shared).compare(
            oracle.shared, oracle.key
        )
        verdict += self._trace(topics.dlq, self._letter).compare(oracle.letters, oracle.key)
        ledgers = self._ledgers()
        errors = oracle.ledger_errors(ledgers.rows, ledgers.tallies) + oracle.ahead(ledgers.ahead)
        for partition, position in ledgers.positions.items():
            if committed_offset(self._admin, self._contract, partition) != position:
                self.torn.add(f"{topics.raw}[{partition}]")
        return verdict, errors

    def _trace(
        self,
        topic: str,
        number: Callable[[Any], int | None],
        told: Callable[[int, int, int], None] | None = None,
    ) -> Trace:
        trace = Trace()
        for message, committed in self._read(topic):
            found = number(message)
            if found is not None:
                payload = message.key(), message.value(), tuple(message.headers() or ())
                trace.saw(message.partition(), found, payload, committed=committed)
                if told is not None and committed:
                    told(message.partition(), message.offset(), found)
        return trace

    def _read(self, topic: str) -> Iterator[tuple[Any, bool]]:
        """Every record twice: as `read_committed` readers see it, and as the others do."""
        for committed in (True, False):
            try:
                for message in records(self._admin, topic, self._contract.partitions, committed=committed):
                    yield message, committed
            except UnstableError as error:
                self.torn.update(str(error).split(", "))

    def _raw(self, message: Any) -> int | None:
        value = message.value()
        if value.startswith(b"poison-"):
            return -int(value[7:])
        return None if int.from_bytes(value[1:5], "big") == self._clock_id else number_of(value)

    def _letter(self, message: Any) -> int:
        kind, number = re.split(rb"[-,]", message.value())
        return -int(number) if kind == b"poison" else int(number)

    def _ledgers(self) -> Ledgers:
        found = Ledgers()
        for message, committed in self._read(self._contract.topics.ledger):
            if committed:
                self._take(found, message.partition(), message.key(), message.value())
            elif message.value() is not None:
                found.ahead += [(who, row[2]) for who, row in self._rows(message.value())]
        return found

    def _take(self, found: Ledgers, partition: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        if key.startswith(POSITION):
            found.positions[partition] = json.loads(value)["next"]
        elif key == b"S":
            body = json.loads(value)
            rejected = sum(body["rejected"].values())
            found.tallies[partition] = Tally(
                body["events"], body["shared"], Counter(body["denied"]), rejected
            )
        else:
            found.rows.update(self._rows(value))

    def _rows(self, value: bytes) -> Iterator[tuple[tuple[int, int], tuple[int, int, int]]]:
        """Pages and deltas hold rows behind a head; nothing else does. A tag of nobody is a row too many."""
        kind, epoch = value[3:4], int.from_bytes(value[4:12], "big", signed=True)
        if value[:2] != b"SL" or kind not in b"PD":
            return
        for tag, hi, mask, used in ROW.iter_unpack(value[52 if kind == b"D" else 12 :]):
            yield self._who.get((epoch, tag), (epoch, -1)), (hi, mask, used)


def committed_offset(admin: Connection, contract: Contract, partition: int) -> int:
    """What the share group has committed; -1001 for nothing, or where it stays unreadable."""
    consumer = Consumer(
        admin.settings(group_id=f"share.{contract.contract}", isolation_level="read_committed"),
        logger=logger(),
    )
    try:
        return int(consumer.committed([TopicPartition(contract.topics.raw, partition)], timeout=30)[0].offset)
    except KafkaException:
        return -1001
    finally:
        consumer.close()
