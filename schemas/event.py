"""Where events come from and what they look like: source, key, time, fields."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field as Setting
from pydantic import PrivateAttr, StringConstraints, field_validator, model_validator

from schemas.units import Part

FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
FieldType = Literal["string", "int", "float", "bool", "timestamp"]
AVRO: dict[str, object] = {
    "string": "string",
    "int": "long",
    "float": "double",
    "bool": "boolean",
    "timestamp": {"type": "long", "logicalType": "timestamp-millis"},
}
# Formats that are not strptime patterns. Epochs and ISO times with an offset carry their own zone.
NAMED_FORMATS = ("iso8601", "epoch_s", "epoch_ms")


def fits_64_bits(value: object) -> bool:
    """Whether Avro's long or double holds a number; True for what is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


class Source(Part):
    """A file that the producer reads. `path` is absolute once loaded; relative ones start at the contract."""

    kind: Literal["csv", "jsonl", "parquet"]
    path: Path
    follow: bool = False
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"


class Time(Part):
    """Event time: which field, how the source writes it, and in which zone where the text does not say.

    `format`: a strptime pattern, or `iso8601`, `epoch_s`, `epoch_ms`. `zone` is None when every value carries
    its own offset. The parsed value is UTC milliseconds everywhere behind the producer.
    """

    field: FieldName
    format: str = "iso8601"
    zone: str | None = None

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except Exception:
                raise ValueError(
                    "not an IANA time zone; write one such as UTC or America/Los_Angeles"
                ) from None
        return zone

    @model_validator(mode="after")
    def _readable(self) -> Time:
        if self.format in NAMED_FORMATS:
            if self.format.startswith("epoch") and self.zone not in (None, "UTC"):
                raise ValueError("epoch times are UTC; leave the zone out")
            return self
        if "%z" in self.format and self.zone is not None:
            raise ValueError("the format has %z, so every value carries its own offset; leave the zone out")
        if "%z" not in self.format and self.zone is None:
            raise ValueError("the format has no %z, so a zone is needed; add zone: UTC or the local one")
        sample = datetime(2016, 1, 2, 13, 4, 5, tzinfo=UTC)
        try:
            back = datetime.strptime(sample.strftime(self.format), self.format)
        except (ValueError, re.error):  # a directive that stands twice is a group's name twice to strptime
            raise ValueError("not a strptime pattern; write one such as %d/%m/%Y %H:%M, or iso8601") from None
        if (back.year, back.month, back.day) != (2016, 1, 2):
            raise ValueError("the pattern loses the date; it needs year, month and day")
        if back.hour not in (0, 13):
            raise ValueError("the pattern confuses morning and afternoon; %I needs %p, or use %H")
        return self


class Field(Part):
    """One field of a raw event. `id` is its position from 1 and enters the noise: append, never reorder."""

    type: FieldType
    column: str | None = None
    default: str | int | float | bool | None = None
    about: str = ""
    _id: int = PrivateAttr(0)

    @property
    def id(self) -> int:
        return self._id

    @model_validator(mode="after")
    def _default_fits(self) -> Field:
        kinds: dict[str, tuple[type, ...]] = {
            "string": (str,),
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "timestamp": (),
        }
        if self.default is not None:
            ok = isinstance(self.default, kinds[self.type])
            if not ok or (isinstance(self.default, bool) and self.type != "bool"):
                raise ValueError(f"the default does not fit type {self.type}")
            if not fits_64_bits(self.default):
                raise ValueError("the default is not finite, or longer than 64 bits")
        return self


class Event(Part):
    """One raw event: public key, event time, every field by name. A column not named is never read."""

    key: FieldName
    time: Time
    fields: Annotated[dict[FieldName, Field], Setting(min_length=2, max_length=200)]

    @model_validator(mode="after")
    def _complete(self) -> Event:
        for position, (name, field) in enumerate(self.fields.items(), start=1):
            field._id = position
            if field.column is None:
                field.__dict__["column"] = name
        return self
