"""What a changelog holds besides the state itself: for each source partition, the position its last
transaction ended at.

The position is written in every transaction, so a changelog and the group's committed offsets agree or are
torn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streams.kafka.records import Source

_POSITION = b"\x00position/"


@dataclass(frozen=True, slots=True)
class Position:
    """`next` is the first offset of `source` that is not yet part of the state, in the cluster of that id."""

    source: Source
    next: int
    cluster: str

    def encode(self) -> tuple[bytes, bytes]:
        """The changelog record (key, value)."""
        key = _POSITION + f"{self.source.topic}/{self.source.partition}".encode()
        return key, json.dumps({"next": self.next, "cluster": self.cluster}, separators=(",", ":")).encode()

    @staticmethod
    def decode(key: bytes, value: bytes) -> Position:
        topic, _, partition = key[len(_POSITION) :].decode().rpartition("/")
        body = json.loads(value)
        return Position(Source(topic, int(partition)), int(body["next"]), str(body["cluster"]))


class Positions:
    """Takes the positions out of a changelog as it is read; the rest passes through in order."""

    def __init__(self) -> None:
        self.found: dict[Source, Position] = {}

    def strip(self, records: Iterable[tuple[bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes | None]]:
        for key, value in records:
            if not key.startswith(_POSITION):
                yield key, value
            elif value is not None:
                position = Position.decode(key, value)
                self.found[position.source] = position
