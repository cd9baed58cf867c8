"""What one transaction publishes: events, clocks, dead letters, and where the source then stands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from producers.parse import Broken
from producers.sources import Row
from schemas.contract import Topics
from streams.kafka.fit import Fit
from streams.kafka.records import Headers, Output

MOST_ROWS = 4_000
MOST_BYTES = 8 << 20


@dataclass(slots=True)
class Tally:
    """Counts of a run, or of one transaction. `unreadable` counts nulled cells by field."""

    published: int = 0
    rejected: int = 0
    clocks: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)
    first: list[Broken] = field(default_factory=list)

    def add(self, other: Tally, first: int) -> None:
        self.published += other.published
        self.rejected += other.rejected
        self.clocks += other.clocks
        for name, count in other.unreadable.items():
            self.unreadable[name] = self.unreadable.get(name, 0) + count
        self.first.extend(other.first[: max(0, first - len(self.first))])


class Batch:
    """Filled in the order of the source; within a partition that is the order of the log."""

    def __init__(self, topics: Topics, partitions: int) -> None:
        self._topics, self._count = topics, partitions
        self.fit = Fit(MOST_ROWS)
        self.clear()

    def clear(self) -> None:
        self._values: list[list[bytes | None]] = [[] for _ in range(self._count)]
        self._keys: list[list[bytes | None]] = [[] for _ in range(self._count)]
        self._letters: list[bytes | None] = []
        self._headers: list[Headers | None] = []
        self._bytes = 0
        self.tally = Tally()
        self.last: Row | None = None
        self.began = 0.0  # monotonic time of its first row

    def __bool__(self) -> bool:
        return self.last is not None or self.tally.clocks > 0

    @property
    def full(self) -> bool:
        return self.rows >= (self.fit.most or MOST_ROWS) or self._bytes >= MOST_BYTES

    @property
    def rows(self) -> int:
        return self.tally.published + self.tally.rejected

    def event(self, row: Row, partition: int, key: bytes, value: bytes) -> None:
        self._values[partition].append(value)
        self._keys[partition].append(key)
        self._bytes += len(value) + len(key)
        self.tally.published += 1
        self._begin(row)

    def clock(self, value: bytes) -> None:
        """One clock record, into every raw partition."""
        for values, keys in zip(self._values, self._keys, strict=True):
            values.append(value)
            keys.append(None)
        self.tally.clocks += 1

    def letter(self, broken: Broken, value: bytes, headers: Headers) -> None:
        self._letters.append(value)
        self._headers.append(headers)
        self._bytes += len(value)
        self.tally.rejected += 1
        self.tally.first.append(broken)
        self._begin(broken.row)

    def _begin(self, row: Row) -> None:
        if self.last is None:
            self.began = time.monotonic()
        self.last = row

    def outputs(self, name: str, progress: bytes | None) -> list[Output]:
        """Everything, the source's progress last (none in a transaction of clocks only)."""
        outputs = [
            Output(self._topics.raw, partition, values, keys)
            for partition, (values, keys) in enumerate(zip(self._values, self._keys, strict=True))
            if values
        ]
        if self._letters:
            outputs.append(Output(self._topics.dlq, 0, self._letters, None, self._headers))
        if progress is not None:
            outputs.append(Output(self._topics.source, 0, [progress], [name.encode()]))
        return outputs
