"""What a share agent remembers of one raw partition: ledger, last clock, counters. All of it is in the
changelog.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.privacy.ledger import Ledger

STATE_KEY = b"S"


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the partition's first record: `events` = `shared` + all `denied` + all `rejected`. Owner's side
    only.
    """

    events: int = 0
    shared: int = 0
    clocks: int = 0
    denied: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.events + other.events,
            self.shared + other.shared,
            self.clocks + other.clocks,
            dict(sorted((Counter(self.denied) + Counter(other.denied)).items())),
            dict(sorted((Counter(self.rejected) + Counter(other.rejected)).items())),
            dict(sorted((Counter(self.notes) + Counter(other.notes)).items())),
        )

    def plain(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "shared": self.shared,
            "clocks": self.clocks,
            "denied": dict(self.denied),
            "rejected": dict(self.rejected),
            "notes": dict(self.notes),
        }


@dataclass(slots=True)
class PartitionState:
    """After the batches computed so far; thrown away and restored when one of them is not committed.

    `clock_ms`: the last clock record in the log, -1 for none.
    """

    ledger: Ledger = field(default_factory=Ledger)
    clock_ms: int = -1
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def restore(cls, changelog: Iterable[tuple[bytes, bytes | None]]) -> PartitionState:
        """From the changelog in log order. Raises TornError where it holds what we did not write."""
        last: list[bytes] = []

        def ledger_values() -> Iterator[bytes | None]:
            for key, value in changelog:
                if key != STATE_KEY:
                    yield value
                elif value is not None:
                    last[:] = [value]

        state = cls(Ledger.restore(ledger_values()))
        if last:
            body = json.loads(last[0])
            state.clock_ms = body.pop("clock_ms")
            state.counts = Counts(**body)
        return state

    @staticmethod
    def record(clock_ms: int, counts: Counts) -> tuple[bytes, bytes]:
        """The changelog record of clock and counters."""
        body = {"clock_ms": clock_ms, **counts.plain()}
        return STATE_KEY, json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
