"""Times as sources write them, to UTC milliseconds.

Local times follow the zone's rules. A local time that a change of the clock skipped does not exist: it is
refused with the reason `time-skipped-by-clock-change`. One that a change of the clock repeats is taken as its
first occurrence; the second pass of that hour then falls on slots that are used already, where the share
agent denies it. A source that keeps standard time all year should say so (`zone: Etc/GMT+8`), one that can
should write offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, DecimalException
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.event import Time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
# Many series share their times, and strptime costs 6 us; a text and its result cost about 200 bytes.
CACHED_TEXTS = 20_000


class TimeProblemError(ValueError):
    """`reason` is a kebab-case word; the text itself is never repeated."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reader(time: Time) -> Callable[[object], int]:
    """A function from a cell to UTC milliseconds, which raises TimeProblemError."""
    zone = ZoneInfo(time.zone) if time.zone else None

    if time.format in ("epoch_s", "epoch_ms"):
        scale = 1000 if time.format == "epoch_s" else 1

        def of_text(text: str) -> int:
            try:
                return int((Decimal(text.strip()) * scale).to_integral_value())
            except (DecimalException, ValueError, OverflowError):
                raise TimeProblemError("time-unreadable") from None
    elif time.format == "iso8601":

        def of_text(text: str) -> int:
            try:
                return _utc(datetime.fromisoformat(text.strip()), zone)
            except (ValueError, OverflowError) as problem:
                raise _as_problem(problem) from None
    else:
        pattern = time.format

        def of_text(text: str) -> int:
            try:
                return _utc(datetime.strptime(text.strip(), pattern), zone)
            except (ValueError, OverflowError) as problem:
                raise _as_problem(problem) from None

    cached = lru_cache(CACHED_TEXTS)(of_text)

    def of_cell(cell: object) -> int:
        if isinstance(cell, str):
            return _in_range(cached(cell))
        if isinstance(cell, datetime):
            try:
                return _in_range(_utc(cell, zone))
            except OverflowError:
                raise TimeProblemError("time-unreadable") from None
        if isinstance(cell, date):
            return of_cell(datetime(cell.year, cell.month, cell.day))
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            return _in_range(of_text(repr(cell)))
        raise TimeProblemError("time-missing" if cell is None else "time-unreadable")

    return of_cell


def _as_problem(problem: Exception) -> TimeProblemError:
    return problem if isinstance(problem, TimeProblemError) else TimeProblemError("time-unreadable")


def _in_range(ms: int) -> int:
    if not -62_135_596_800_000 <= ms < 253_402_300_800_000:  # years 1 to 9999
        raise TimeProblemError("time-unreadable")
    return ms


def _utc(moment: datetime, zone: ZoneInfo | None) -> int:
    if moment.tzinfo is None:
        if zone is None:
            raise TimeProblemError("time-without-zone")
        local = moment.replace(tzinfo=zone, fold=0)
        moment_utc = local.astimezone(UTC)
        if moment_utc.astimezone(zone).replace(tzinfo=None, fold=0) != moment.replace(fold=0):
            raise TimeProblemError("time-skipped-by-clock-change")
        return (moment_utc - _EPOCH) // _MS
    return (moment - _EPOCH) // _MS
