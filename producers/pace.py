"""When the next event may be sent: by a rate in events a second, by a replay speed, by both or neither."""

from __future__ import annotations

# What a stall of the machine may be made up for in one burst.
CATCH_UP_SECONDS = 0.1


class Pace:
    """`rate`: events a second. `speed`: seconds of event time a second. None or 0: no limit.

    A pace begins anew with each run. The time of an event stamped far ahead is the caller's to cap.
    """

    def __init__(self, rate: float | None = None, speed: float | None = None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._speed = speed or 0.0
        self._next: float | None = None
        self._origin: tuple[float, int] | None = None
        self._latest = 0

    @property
    def unlimited(self) -> bool:
        return not self._gap and not self._speed

    def due(self, time_ms: int, now: float) -> float:
        """When an event of this time may go; ask once for each event, then send it at that moment."""
        due = now
        if self._gap:
            due = max(self._next, now - CATCH_UP_SECONDS) if self._next is not None else now
            self._next = due + self._gap
        if self._speed:
            if self._origin is None:
                self._origin, self._latest = (now, time_ms), time_ms
            self._latest = max(self._latest, time_ms)
            start, first = self._origin
            due = max(due, start + (self._latest - first) / 1000 / self._speed)
        return due
