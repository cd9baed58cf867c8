"""What a trainer must have made of the shared topic, decided without any of its code, and its own record of it.

A station lies in one partition, so the order of its events is the log's, however the trainer mixes partitions: the
first event of each later slot is learned and answered with one forecast, every other one is counted as late. A release
falls due with the first event of each later period, whatever partition it comes from.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.events import MINUTE_MS, Event
from tests.chaos.oracle import Trace, Verdict

STEP_MINUTES = 5
LEAST_MINUTES = 15  # of a release: less than the gate's labels come in between
TASK = """
task: {name}
contracts: [{contract}]
target: amount
step: 5min
release_every: {every}min
context: 16
held_out: 48
profile: {{smooth: 1, spread_smooth: 2}}
autoregression: {{lags: 5, half_lives: [2, 6]}}
network: {{hidden: [8, 8], embedding: 2, steps: 4, batch: 16, capacity: 65536}}
"""
SHARD_BYTES = 16 << 10
POSITION = b"\x00position/"


def release_minutes(units_a_minute: float, rate: float, wanted_seconds: float = 6.0) -> int:
    """Event time between two releases so that one comes every few seconds; each unit sends once a step."""
    minutes = wanted_seconds * rate / units_a_minute
    return max(LEAST_MINUTES, round(minutes / STEP_MINUTES) * STEP_MINUTES)


class Lessons:
    """Told of every shared event, partition by partition in the order of the log."""

    def __init__(self, every_minutes: int) -> None:
        self.events = 0
        self.numbers: dict[tuple[str, int], int] = {}  # (station, slot) -> the event that was learned
        self._latest: dict[str, int] = {}
        self._every = every_minutes
        self._periods: set[int] = set()
        self._keys: dict[int, str] = {}

    def shared(self, event: Event) -> None:
        self.events += 1
        slot = event.slot // STEP_MINUTES
        self._periods.add(event.slot // self._every)
        if slot > self._latest.get(event.station, -1):
            self._latest[event.station] = slot
            self.numbers[event.station, slot] = event.number
            self._keys[event.number] = event.station

    @property
    def learned(self) -> int:
        return len(self.numbers)

    @property
    def candidates(self) -> int:
        """Periods that ended."""
        return max(0, len(self._periods) - 1)

    def number(self, station: str, as_of_ms: int) -> int:
        """Of the event that a forecast answers; below 0, and its own, where nobody was to be answered."""
        slot = as_of_ms // (STEP_MINUTES * MINUTE_MS)
        return self.numbers.get((station, slot), -1 - hash((station, slot)) % (1 << 60))

    def compare(self, forecasts: Trace) -> Verdict:
        """Of the forecasts' topic: each lesson once, in order within a station."""
        return forecasts.compare({0: list(self.numbers.values())}, lambda number: self._keys.get(number))


@dataclass(frozen=True, slots=True)
class Record:
    """What the trainer says of itself: the newest committed record, put together from its shards."""

    events: int = 0
    late: int = 0
    candidates: int = 0
    version: int = 0
    newest: str | None = None
    sources: Mapping[int, int] = field(default_factory=dict)  # partition -> next offset
    positions: Mapping[int, int] = field(default_factory=dict)  # the changelog's, of the same transaction

    @classmethod
    def of(cls, newest: Mapping[bytes, bytes | None]) -> Record:
        """From the newest value of each key. Raises ValueError where a part is not whole."""
        head = newest.get(b"head")
        if head is None:
            return cls()
        told: dict[str, Any] = json.loads(head)["parts"]
        parts = {name: _part(newest, name, *size) for name, size in told.items()}
        line = json.loads(parts["line"])
        events, late = _counts(parts["learner"])
        return cls(
            events,
            late,
            line["candidates"],
            line["version"],
            line["parent"],
            {int(name.rpartition("/")[2]): offset for name, offset in line["sources"].items()},
            {
                int(key.rpartition(b"/")[2]): json.loads(value)["next"]
                for key, value in newest.items()
                if key.startswith(POSITION) and value is not None
            },
        )


def _part(newest: Mapping[bytes, bytes | None], name: str, size: int, digest: str) -> bytes:
    shards = (newest.get(b"%s/%06d" % (name.encode(), index)) for index in range(-(-size // SHARD_BYTES)))
    content = b"".join(shard or b"" for shard in shards)
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"part {name} of the record is not whole")
    return content


def _counts(learner: bytes) -> tuple[int, int]:
    """Events and late ones, out of a safetensors file: int64 format, seed, events, late, since."""
    size = int.from_bytes(learner[:8], "little")
    begin, end = json.loads(learner[8 : 8 + size])["learner.counts"]["data_offsets"]
    _, _, events, late, _ = struct.unpack("<5q", learner[8 + size :][begin:end])
    return events, late


def record_errors(
    record: Record,
    lessons: Lessons,
    released: list[str],
    committed: Mapping[int, int],
    last: Mapping[int, int],
) -> list[str]:
    """What of the record disagrees with the shared log, the releases, or the group. `committed`: the group's offsets;
    `last`: offset of the last committed shared record of a partition."""
    newest = released[-1] if released else None
    found = [
        (record.events == lessons.events, f"learned {record.events} events of {lessons.events}"),
        (record.late == lessons.events - lessons.learned, f"{record.late} late"),
        (
            record.candidates == lessons.candidates,
            f"{record.candidates} candidates of {lessons.candidates} periods",
        ),
        (record.version == len(released), f"version {record.version}, {len(released)} releases"),
        (record.newest == newest, f"newest is {record.newest}, the topic's {newest}"),
        (dict(record.sources) == dict(committed), f"at {record.sources}, its group at {committed}"),
        (dict(record.positions) == dict(committed), f"changelog at {record.positions}, group at {committed}"),
    ]
    found += [
        (committed.get(partition, -1) > offset, f"partition {partition} is not learned to its end")
        for partition, offset in last.items()
    ]
    return [text for good, text in found if not good]
