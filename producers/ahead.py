"""Parsed rows in hand, and the times of those behind: the replay clock sees them before a row is sent."""

from __future__ import annotations

from collections import deque
from itertools import islice

from producers.clock import LOOK_AHEAD
from producers.parse import Broken, Event, Parser
from producers.sources import Source

READ_ROWS = 2_000
# Only so many rows are looked at for readable ones, so that a stretch of broken ones does not fill the memory.
WINDOW = 5_000


class Ahead:
    """Rows of one opened source, parsed. With `depth` 0 (following) it never waits for more than one.

    What `following` says depends on the rows of the source alone, not on where it was opened.
    """

    def __init__(self, source: Source, parser: Parser, *, depth: int = LOOK_AHEAD) -> None:
        self._source, self._parser, self._depth = source, parser, depth
        self._items: deque[Event | Broken] = deque()
        self._times: deque[tuple[int, int]] = (
            deque()
        )  # of each event in hand: its row's number since opening, time
        self._read = 0
        self._ended = False

    def head(self) -> Event | Broken | None:
        """The next item, an event with those behind it in hand; None: the end, or nothing now."""
        while not self._items or self._looks_further():
            rows = self._source.read(READ_ROWS)
            if not rows:
                self._ended = True
                break
            self._ended = False
            for row in rows:
                self._read += 1
                item = self._parser.parse(row)
                self._items.append(item)
                if isinstance(item, Event):
                    self._times.append((self._read, item.time_ms))
        return self._items[0] if self._items else None

    def _looks_further(self) -> bool:
        if self._ended or len(self._times) > self._depth or isinstance(self._items[0], Broken):
            return False
        return self._read < self._times[0][0] + WINDOW

    def following(self) -> list[int]:
        """The times of the next readable rows behind the head, which must be an event."""
        last = self._times[0][0] + WINDOW
        return [time for row, time in islice(self._times, 1, self._depth + 1) if row <= last]

    def drop(self) -> None:
        """The head is dealt with."""
        if isinstance(self._items.popleft(), Event):
            self._times.popleft()
