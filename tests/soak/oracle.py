"""What must be shared, compared with what is as it comes: an hour is 18,000,000 events, and nobody keeps a list."""

from __future__ import annotations

from collections import Counter, deque

from tests.chaos.events import Event
from tests.chaos.oracle import Model


class Oracle:
    """Told of every event in the order in which it was sent, and of every shared record in the order of its log.

    What is expected of a partition and has not come is a queue; a record that comes before its turn makes those before
    it missing: they are lost unless they come after all, which is `reordered`. A record that was not expected at all
    counts as `duplicated`.
    """

    def __init__(self, partitions: int) -> None:
        self._model = Model(cap=1 << 62)  # the bound is assumed, not held: see docs/privacy.md
        self._due: dict[int, deque[int]] = {each: deque() for each in range(partitions)}
        self._missing: set[int] = set()
        self.events = self.broken = self.shared = self.seen = 0
        self.denied: Counter[str] = Counter()
        self.duplicated = self.reordered = 0

    def sent(self, event: Event) -> None:
        self.events += 1
        if event.broken:
            self.broken += 1
        elif reason := self._model.admit(0, event.unit, event.slot):
            self.denied[reason] += 1
        else:
            self.shared += 1
            self._due[event.partition].append(event.number)

    def saw(self, partition: int, number: int) -> None:
        self.seen += 1
        due = self._due[partition]
        if due and due[0] == number:
            due.popleft()
        elif number in self._missing:
            self._missing.remove(number)
            self.reordered += 1
        elif due and due[0] < number <= due[-1]:
            while due and due[0] < number:
                self._missing.add(due.popleft())
            if due and due[0] == number:
                due.popleft()
            else:
                self.duplicated += 1
        else:
            self.duplicated += 1

    @property
    def waiting(self) -> int:
        """Shared records that are still to come; at the end, those that are lost."""
        return len(self._missing) + sum(map(len, self._due.values()))
