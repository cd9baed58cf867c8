"""Times as sources write them, to UTC milliseconds.

Local times follow the zone's rules. A local time that a change of the clock skipped does not exist: it is
refused with the reason `time-skipped-by-clock-change`. One that a change of the clock repeats is taken as its
first occurrence; the second pass of that hour then falls on slots that are used already, where the share
agent denies it. A source that keeps standard time all year should say so (`zone: Etc/GMT+8`), one that can
should write offsets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, DecimalException
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.event import Time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MS = timedelta(milliseconds=1)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
# Many series share their times; a text and its result cost about 200 bytes.
CACHED_TEXTS = 4_096
# The numbers that strptime reads, as it reads them (a leap second is left to it).
_DIGITS = {
    "Y": "([0-9]{4})",
    "m": "(1[0-2]|0[1-9]|[1-9])",
    "d": "(3[0-1]|[1-2][0-9]|0[1-9]|[1-9])",
    "H": "(2[0-3]|[0-1][0-9]|[0-9])",
    "M": "([0-5][0-9]|[0-9])",
    "S": "([0-5][0-9]|[0-9])",
}


class TimeProblemError(ValueError):
    """`reason` is a kebab-case word; the text itself is never repeated."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reader(time: Time) -> Callable[[object], int]:
    """A function from a cell to UTC milliseconds, which raises TimeProblemError."""
    zone = ZoneInfo(time.zone) if time.zone else None
    of_text = (
        _epoch(1000 if time.format == "epoch_s" else 1) if "epoch" in time.format else _calendar(time, zone)
    )
    cached = lru_cache(CACHED_TEXTS)(of_text)

    def of_cell(cell: object) -> int:
        if isinstance(cell, str):
            return cached(cell)
        if isinstance(cell, datetime):
            return _utc(cell, zone)
        if isinstance(cell, date):
            return _utc(datetime(cell.year, cell.month, cell.day), zone)
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            return of_text(repr(cell))
        raise TimeProblemError("time-missing" if cell is None else "time-unreadable")

    return of_cell


def _epoch(scale: int) -> Callable[[str], int]:
    def of_text(text: str) -> int:
        try:
            ms = int((Decimal(text.strip()) * scale).to_integral_value())
        except (DecimalException, ValueError, OverflowError):
            raise TimeProblemError("time-unreadable") from None
        if not FIRST_MS <= ms <= LAST_MS:
            raise TimeProblemError("time-unreadable")
        return ms

    return of_text


def _calendar(time: Time, zone: ZoneInfo | None) -> Callable[[str], int]:
    read = datetime.fromisoformat if time.format == "iso8601" else _by_pattern(time.format)

    def of_text(text: str) -> int:
        try:
            moment = read(text.strip())
        except (ValueError, OverflowError):
            raise TimeProblemError("time-unreadable") from None
        return _utc(moment, zone)

    return of_text


def _by_pattern(pattern: str) -> Callable[[str], datetime]:
    """As `datetime.strptime`. A pattern of numbers only is matched here: 2 us instead of 8."""
    parts = re.split(r"%(.)", pattern)
    names = parts[1::2]
    if any(name not in _DIGITS for name in names) or len(set(names)) < len(names):
        return lambda text: datetime.strptime(text, pattern)
    expression = "".join(_DIGITS[part] if at % 2 else re.escape(part) for at, part in enumerate(parts))
    match = re.compile(expression).fullmatch
    order = [names.index(name) + 1 if name in names else 0 for name in "YmdHMS"]

    def read(text: str) -> datetime:
        found = match(text)
        if found is None:
            return datetime.strptime(text, pattern)
        year, month, day, hour, minute, second = (int(found[at]) if at else 0 for at in order)
        return datetime(year, month, day, hour, minute, second)

    return read


def _utc(moment: datetime, zone: ZoneInfo | None) -> int:
    if moment.tzinfo is not None:
        since = moment - _EPOCH
    elif zone is None:
        raise TimeProblemError("time-without-zone")
    else:
        first = _offset(moment.replace(fold=0), zone)
        if first < _offset(moment.replace(fold=1), zone):  # PEP 495: grows in a gap, falls in a repeated hour
            raise TimeProblemError("time-skipped-by-clock-change")
        since = moment - _NAIVE_EPOCH - first
    ms = since // _MS
    if not FIRST_MS <= ms <= LAST_MS:
        raise TimeProblemError("time-unreadable")
    return ms


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    found = zone.utcoffset(moment)
    assert found is not None
    return found
