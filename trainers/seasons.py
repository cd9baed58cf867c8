"""Which slot of the local day and week a slot of time is. Public arithmetic on slot numbers, no data.

A slot is floor(milliseconds since 1970 / step). The zone's rules become a table once, which travels with
the learner's state and inside the ONNX graph: a later edition of the time zone database changes no replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.units import MS
from trainers.spec import TaskSpec

Slots = NDArray[np.int64]
FIRST_YEAR, LAST_YEAR = 2000, 2060  # before and after them the nearest offset holds
THURSDAY = 3  # 1970-01-01, counted from Monday


@dataclass(frozen=True, slots=True)
class Seasons:
    """`switch` int64[T] are the slots at which the zone's offset changes, `offset` int64[T + 1] the
    offsets, in slots.
    """

    day_slots: int
    switch: Slots
    offset: Slots

    @classmethod
    def of(cls, spec: TaskSpec) -> Self:
        """Raises ConfigurationError where the zone is unknown."""
        try:
            zone = ZoneInfo(spec.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigurationError(
                f"Unknown time zone {spec.zone!r}.",
                "Write a name such as Europe/Berlin or UTC; `pip install tzdata` brings the list.",
            ) from None
        hour, found = MS["h"] // 1000, []
        start = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
        stop = int(datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp())

        def offset(second: int) -> int:
            gap = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
            return int(gap.total_seconds()) * 1000 // spec.step_ms if gap is not None else 0

        offsets = [offset(start)]
        for before in range(start, stop, 168 * hour):
            low, high = before, before + 168 * hour
            if offset(high) == offsets[-1]:
                continue
            while high - low > 60:  # rules change on a whole minute
                middle = (low + high) // 120 * 60
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            found.append(-(-high * 1000 // spec.step_ms))
            offsets.append(offset(high))
        return cls(spec.day, np.array(found, np.int64), np.array(offsets, np.int64))

    def local(self, slots: Slots) -> Slots:
        """Local slot number, counted from Monday 1969-12-29 00:00 local time."""
        if not len(self.switch):
            return slots + int(self.offset[0]) + THURSDAY * self.day_slots
        shift: Slots = self.offset[self.switch.searchsorted(slots, side="right")]
        local: Slots = slots + shift + THURSDAY * self.day_slots
        return local

    def day(self, slots: Slots) -> Slots:
        """0 .. slots of a day - 1."""
        day: Slots = self.local(slots) % self.day_slots
        return day

    def week(self, slots: Slots) -> Slots:
        """0 .. slots of a week - 1; Monday's midnight is 0."""
        week: Slots = self.local(slots) % (7 * self.day_slots)
        return week
