"""Kafka's own record of transactions, as the topic `__transaction_state` holds it. Pure.

librdkafka can neither describe nor list transactions, but whoever may read that topic (admin) finds there each
transactional id with its state, its partitions and when it began. Formats: TransactionLogKey version 0,
TransactionLogValue versions 0 and 1 (flexible, since Kafka 4) in the sources of Apache Kafka.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

TOPIC = "__transaction_state"
# Number on the wire -> what it means; all others hold no partition back.
STATES = {1: "open", 2: "being committed", 3: "being aborted"}
OPEN = "open"


@dataclass(frozen=True, slots=True)
class Transaction:
    """The newest word of the coordinator about one transactional id. Times: ms since 1970, the broker's clock."""

    identity: str
    producer_id: int
    state: str
    timeout_ms: int
    partitions: frozenset[tuple[str, int]]
    began_ms: int


def identity(key: bytes) -> str | None:
    """The transactional id that a record is about; None for a format that is not known."""
    found = _Bytes(key)
    return found.text(found.number(2)) if found.number(2) == 0 else None


def transaction(name: str, value: bytes) -> Transaction | None:
    """What it says; None where that transaction holds nothing back. Raises ValueError for an unknown format."""
    found = _Bytes(value)
    version = found.number(2)
    if version not in (0, 1):
        raise ValueError(f"version {version} of {TOPIC} is not known")
    producer, _, timeout_ms, status = found.number(8), found.number(2), found.number(4), found.number(1)
    partitions: list[tuple[str, int]] = []
    for _ in range(found.count(version)):
        topic = found.text(found.count(version) if version else found.number(2))
        partitions += [(topic, found.number(4)) for _ in range(found.count(version))]
        if version and found.varint():
            raise ValueError(f"a partition of {TOPIC} has tags that are not known")
    found.number(8)
    began_ms = found.number(8)
    if status not in STATES:
        return None
    return Transaction(name, producer, STATES[status], timeout_ms, frozenset(partitions), began_ms)


class _Bytes(BytesIO):
    """Big-endian numbers, and Kafka's compact ones."""

    def number(self, size: int) -> int:
        found = self.read(size)
        if len(found) < size:
            raise ValueError(f"a record of {TOPIC} is cut short")
        return int.from_bytes(found, "big", signed=True)

    def varint(self) -> int:
        found = shift = 0
        while True:
            byte = self.number(1)
            found |= (byte & 0x7F) << shift
            if byte >= 0:
                return found
            shift += 7

    def count(self, version: int) -> int:
        """Of an array (or, since version 1, of a text's bytes); a null one is empty."""
        return max(0, self.varint() - 1 if version else self.number(4))

    def text(self, size: int) -> str:
        return self.read(size).decode()
