"""The log in memory: for tests, and for looking at the registry without a broker. It forgets at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sluice.stack.registry_log import Batch
from sluice.stack.registry_store import NOOP, Record


class MemoryLog:
    """Does what `registry_log.Log` does, compaction included, and answers at once."""

    def __init__(self) -> None:
        self.records: Batch = []
        self._end = 0
        self._more = threading.Condition()
        self._closed = False

    def open(self, timeout_seconds: float) -> str:
        return "memory"

    def follow(self, take: Callable[[Batch], None]) -> None:
        position = 0
        while True:
            with self._more:
                self._more.wait_for(lambda: self._closed or self._end > position)  # noqa: B023 - asked at once
                if self._closed:
                    return
                batch = [record for record in self.records if record[2] >= position]
                position = self._end
            take(batch)

    def mark(self) -> int:
        return self.append((NOOP,))

    def append(self, records: tuple[Record, ...]) -> int:
        with self._more:
            for key, value in records:
                self.records.append((key, value, self._end))
                self._end += 1
            self._more.notify_all()
            return self._end - 1

    def compact(self) -> None:
        """Keep the last record of each key, none that is a tombstone; offsets stay."""
        with self._more:
            last = {key: offset for key, _, offset in self.records}
            self.records = [r for r in self.records if last[r[0]] == r[2] and r[1] is not None]

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify_all()
