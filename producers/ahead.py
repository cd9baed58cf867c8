"""Parsed rows in hand, and the times of those behind: the replay clock sees them before a row is sent."""

from __future__ import annotations

from collections import deque
from itertools import islice

from producers.clock import LOOK_AHEAD
from producers.parse import Broken, Event, Parser
from producers.sources import Source

READ_ROWS = 2_000


class Ahead:
    """Rows of one opened source, parsed. With `depth` 0 (following) it never waits for more than one."""

    def __init__(self, source: Source, parser: Parser, *, depth: int = LOOK_AHEAD) -> None:
        self._source, self._parser, self._depth = source, parser, depth
        self._items: deque[Event | Broken] = deque()
        self._times: deque[int] = deque()
        self._ended = False

    def head(self) -> Event | Broken | None:
        """The next item, `depth` readable rows behind it in hand unless the source ends; None: nothing."""
        while len(self._times) <= self._depth and not self._ended and (self._depth or not self._items):
            rows = self._source.read(READ_ROWS)
            if not rows:
                self._ended = self._depth > 0
                break
            for row in rows:
                item = self._parser.parse(row)
                self._items.append(item)
                if isinstance(item, Event):
                    self._times.append(item.time_ms)
        return self._items[0] if self._items else None

    def following(self) -> list[int]:
        """The times of the next readable rows behind the head, which must be an event."""
        return list(islice(self._times, 1, self._depth + 1))

    def drop(self) -> None:
        """The head is dealt with."""
        if isinstance(self._items.popleft(), Event):
            self._times.popleft()
