"""Small words of a contract: durations, instants, canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

MS = {
    "ms": 1,
    "s": 1_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
NAMED_MS = {"minute": MS["min"], "hour": MS["h"], "day": MS["d"], "week": MS["w"], "year": MS["y"]}
LONGEST_MS = 1_000 * MS["y"]  # so that a time and a duration add up in 64 bits
_DURATION = re.compile(r"^([1-9]\d{0,9})\s*(ms|s|min|h|d|w|y)$")


class Part(BaseModel):
    """Base of every part of a contract: frozen, unknown keys refused, no input echoed in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)


def duration_ms(value: Any) -> int:
    """Milliseconds of `5min`, `7d`, `day`. A year is 365 days, a day 24 hours: no calendar in here."""
    if isinstance(value, str):
        if value in NAMED_MS:
            return NAMED_MS[value]
        found = _DURATION.match(value)
        if found and int(found[1]) * MS[found[2]] <= LONGEST_MS:
            return int(found[1]) * MS[found[2]]
    raise ValueError(
        "not a duration up to 1000y; write a number and a unit, as in 15s, 5min, 1h, 7d, 1y, or day, hour, week"
    )


def instant_ms(value: Any) -> int:
    """Milliseconds since 1970 of a date or an ISO 8601 time; without an offset it is UTC."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            return round(parsed.timestamp() * 1000)
    elif isinstance(value, date):
        return instant_ms(value.isoformat())
    raise ValueError("not a date or a time; write 2016-01-01 or 2016-01-01T08:00:00Z")


def duration_text(ms: int) -> str:
    """The shortest exact way to write it: 300000 -> `5 min`."""
    for unit in ("y", "w", "d", "h", "min", "s"):
        if ms % MS[unit] == 0:
            return f"{ms // MS[unit]} {unit}"
    return f"{ms} ms"


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no blanks, ASCII. Floats are the caller's to avoid."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


DurationMs = Annotated[int, BeforeValidator(duration_ms)]
InstantMs = Annotated[int, BeforeValidator(instant_ms)]
