"""Clock records: what "now" is for the agents behind the raw topic, on a public grid, in every partition.

Both clocks only go forward, and neither is ever the latest event time: one event stamped far ahead must not
move it.

*Live* (a followed source): the wall clock, floored to the grid.

*Replay* (a file at rest): before row i is sent, the clock goes to its event time t, floored to the grid, if
more than half of the next LOOK_AHEAD readable rows lie at or after that floor. So a stray stamp ahead, or a
run of up to four, moves nothing, and a real gap in the data does, before its first row. Where the file ends
and no row follows, the clock goes on by LAST_STEP_MS at most. The first clock of all is the first row's, if
confirmed, else the (lower) median of the next rows. The rule depends on the file and on the clock written
last, never on batches or on time, so that a resumed run writes the clocks that an undisturbed one would have
written; but for stamps more than AHEAD_MS past the wall clock, which move nothing however many they are:
9999-12-31 is how some sources write "open", and would close every epoch before it for good.

A file that is not in the order of time (all of one key, then all of the next) has late rows: the clock stays
ahead, and the agents deny what is older than the contract keeps. Sort such a file by time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.contract import Contract

LOOK_AHEAD = 8
LAST_STEP_MS = 3_600_000
AHEAD_MS = 366 * 86_400_000
FINEST_MS, COARSEST_MS, DEFAULT_MS = 1_000, 300_000, 60_000


def grid_ms(contract: Contract) -> int:
    """The grid of clock records: the event time's, between 1 s and 5 min; 1 min where there is none."""
    rule = contract.privacy.fields.get(contract.event.time.field)
    grid = getattr(rule, "grid_ms", DEFAULT_MS)
    return min(max(grid, FINEST_MS), COARSEST_MS)


class LiveClock:
    """The wall clock on the grid. `last`: the newest clock record written, None when there is none."""

    def __init__(self, grid: int, last: int | None = None) -> None:
        self.grid, self.last = grid, last

    def tick(self, now_ms: int) -> int | None:
        """The clock record that is due, or None."""
        floor = now_ms - now_ms % self.grid
        if self.last is not None and floor <= self.last:
            return None
        self.last = floor
        return floor


class ReplayClock:
    """The virtual clock of a file at rest. `last`: the newest clock record written, None for none. `now_ms`: the
    wall clock when the run began."""

    def __init__(self, grid: int, last: int | None = None, now_ms: int | None = None) -> None:
        self.grid, self.last = grid, last
        self._latest = math.inf if now_ms is None else now_ms + AHEAD_MS

    def moves(self, time_ms: int) -> bool:
        """Whether this event could move the clock at all; most cannot, and need no look ahead."""
        return self.last is None or time_ms - time_ms % self.grid > self.last

    def before(self, time_ms: int, following: Sequence[int]) -> int | None:
        """The clock record to write before an event, or None. `following`: times of LOOK_AHEAD rows."""
        moved = self.next(time_ms, following)
        self.last = self.last if moved is None else moved
        return moved

    def next(self, time_ms: int, following: Sequence[int]) -> int | None:
        """What `before` will answer; changes nothing."""
        if not self.moves(time_ms):
            return None
        floor = time_ms - time_ms % self.grid
        confirmed = 2 * sum(time >= floor for time in following) > len(following)
        if self.last is None:
            if not confirmed and following:
                median = sorted(following)[(len(following) - 1) // 2]
                floor = median - median % self.grid
        elif not confirmed and (following or floor - self.last > LAST_STEP_MS):
            return None
        return floor if floor <= self._latest else None
