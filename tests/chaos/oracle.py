"""What must have become of each event, decided without any of the code under test, and the comparison with what has.

Numbers stand for events; poison that was put into raw has negative ones. Nothing here touches Kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from tests.chaos.events import Event

WINDOW = 64
Rows = dict[tuple[int, int], tuple[int, int, int]]  # (epoch, unit) -> hi slot, mask, used
POISON_REASON = "not-framed"


class Model:
    """The ledger, one event at a time: docs/privacy.md in plain Python."""

    def __init__(self, cap: int) -> None:
        self.rows: Rows = {}
        self._cap = cap

    def admit(self, epoch: int, unit: int, slot: int) -> str:
        """Empty where the event is shared, else the reason why it is denied."""
        known = self.rows.get((epoch, unit))
        if known is None:
            self.rows[epoch, unit] = slot, 1, 1
            return ""
        hi, mask, used = known
        if used >= self._cap:
            return "contribution-spent"
        if slot > hi:
            hi, mask = slot, mask << (slot - hi) & (1 << WINDOW) - 1 | 1
        elif hi - slot >= WINDOW:
            return "slot-too-old"
        elif mask >> (hi - slot) & 1:
            return "slot-used"
        else:
            mask |= 1 << (hi - slot)
        self.rows[epoch, unit] = hi, mask, used + 1
        return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unexpected`: records of events that should not stand in that topic, whoever reads it."""

    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    second_payloads: int = 0
    unexpected: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


class Trace:
    """What a topic holds, for readers with `read_committed` and for those without."""

    def __init__(self) -> None:
        self.committed: dict[int, list[int]] = {}
        self._uncommitted: dict[int, set[int]] = {}
        self._payloads: dict[int, int] = {}
        self._second: set[int] = set()

    def saw(self, partition: int, number: int, payload: object, *, committed: bool) -> None:
        """One record, in the order of the log. `payload`: all of it that a reader can see, hashable."""
        if committed:
            self.committed.setdefault(partition, []).append(number)
        else:
            self._uncommitted.setdefault(partition, set()).add(number)
        if self._payloads.setdefault(number, hash(payload)) != hash(payload):
            self._second.add(number)

    def compare(self, expected: Mapping[int, Sequence[int]], key: Callable[[int], object]) -> Verdict:
        """`expected`: numbers by partition, in the order in which they were sent."""
        lost = duplicated = reordered = unexpected = 0
        for partition in {*expected, *self.committed, *self._uncommitted}:
            wanted = {number: place for place, number in enumerate(expected.get(partition, ()))}
            found = self.committed.get(partition, [])
            counts = Counter(found)
            lost += sum(number not in counts for number in wanted)
            duplicated += sum(count - 1 for count in counts.values())
            seen_only = self._uncommitted.get(partition, set())
            unexpected += len((counts.keys() | seen_only) - wanted.keys())
            reordered += _reordered(found, wanted, key)
        return Verdict(lost, duplicated, reordered, len(self._second), unexpected)


def _reordered(found: Iterable[int], wanted: Mapping[int, int], key: Callable[[int], object]) -> int:
    """Records behind a later one of their key, the first time that each appears."""
    latest: dict[object, int] = {}
    seen: set[int] = set()
    count = 0
    for number in found:
        place = wanted.get(number)
        if place is None or number in seen:
            continue
        seen.add(number)
        who = key(number)
        if place < latest.get(who, -1):
            count += 1
        else:
            latest[who] = place
    return count


@dataclass(slots=True)
class Tally:
    """What the agent says of a partition, in its changelog."""

    events: int = 0
    shared: int = 0
    denied: Counter[str] = field(default_factory=Counter)
    rejected: int = 0


class Oracle:
    """Told of every event in the order in which it was sent, and of the poison that is in raw."""

    def __init__(self, cap: int, partitions: int) -> None:
        self.model = Model(cap)
        self.raw: dict[int, list[int]] = {each: [] for each in range(partitions)}
        self.shared: dict[int, list[int]] = {each: [] for each in range(partitions)}
        self.letters: dict[int, list[int]] = {each: [] for each in range(partitions)}
        self.tallies: dict[int, Tally] = {each: Tally() for each in range(partitions)}
        self._units: list[int] = []

    def sent(self, event: Event) -> None:
        """Numbers come without a gap, from 0."""
        if event.number != len(self._units):
            raise ValueError("an event was left out")
        self._units.append(-1 if event.broken else event.unit)
        if event.broken:  # the publisher's own letters go to partition 0
            self.letters[0].append(event.number)
            return
        self.raw[event.partition].append(event.number)
        tally = self.tallies[event.partition]
        tally.events += 1
        reason = self.model.admit(event.epoch, event.unit, event.slot)
        if reason:
            tally.denied[reason] += 1
        else:
            tally.shared += 1
            self.shared[event.partition].append(event.number)

    def poison(self, partition: int, numbers: Iterable[int]) -> None:
        """Raw records that are no events, in the order of the log: each is one dead letter."""
        for number in numbers:
            self.raw[partition].append(number)
            self.letters[partition].append(number)
            self.tallies[partition].events += 1
            self.tallies[partition].rejected += 1

    def key(self, number: int) -> object:
        """Whose order counts: the unit's; all broken rows together; all poison of a partition together."""
        return self._units[number] if number >= 0 else "poison"

    def ledger_errors(self, found: Rows, tallies: Mapping[int, Tally]) -> int:
        """Rows that differ, are missing or too many; and numbers of a partition that differ."""
        rows = sum(found.get(who) != row for who, row in self.model.rows.items())
        rows += len(found.keys() - self.model.rows.keys())
        return rows + sum(tallies.get(each) != tally for each, tally in self.tallies.items())

    def ahead(self, seen: Iterable[tuple[tuple[int, int], int]]) -> int:
        """Units that some uncommitted ledger record says have shared more than they ever may. `seen`: unit, used."""
        return len({who for who, used in seen if used > self.model.rows.get(who, (0, 0, 0))[2]})
