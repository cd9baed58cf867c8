"""For what, how long, at which price and where the shared data may be used, and how long it is kept."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field as Setting
from pydantic import StringConstraints, field_validator

from schemas.privacy import Slug
from schemas.units import MS, DurationMs, Part

_PRICE = re.compile(r"^\d{1,9}(\.\d{1,4})? [A-Z]{3}$")
Region = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]


class Terms(Part):
    """What a user of the data agrees to. The digest of these travels in every release."""

    purpose: Annotated[tuple[Slug, ...], Setting(min_length=1)]
    for_ms: DurationMs = Setting(alias="for")
    price: str = "0 EUR"
    region: tuple[Region, ...] = ()

    @field_validator("price")
    @classmethod
    def _money(cls, price: str) -> str:
        if not _PRICE.match(price):
            raise ValueError("not a price; write an amount and a currency code, as in 0 EUR or 12.50 USD")
        return price

    def plain(self) -> dict[str, object]:
        """As canonical JSON sees it: integers and text only."""
        return {
            "purpose": list(self.purpose),
            "for_ms": self.for_ms,
            "price": self.price,
            "region": list(self.region),
        }


class Keep(Part):
    """Retention in milliseconds: raw stays short, since it is what must not leak."""

    raw_ms: DurationMs = Setting(7 * MS["d"], alias="raw")
    shared_ms: DurationMs = Setting(MS["y"], alias="shared")
