"""Local slots of day and week, against the standard library's own arithmetic on dates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.learner_streams import small
from trainers.seasons import Seasons


@pytest.mark.parametrize(
    "zone", ["America/Los_Angeles", "Europe/Berlin", "Asia/Kolkata", "UTC", "Australia/Lord_Howe"]
)
@pytest.mark.parametrize("minutes", [5, 30])
def test_slots_follow_the_clock_on_the_wall(zone: str, minutes: int) -> None:
    seasons = Seasons.of(small(zone=zone, step=f"{minutes}min"))
    rng = np.random.default_rng(0)
    slots = rng.integers(946_684_800, 2_840_140_800, 500) // (60 * minutes)
    changes = seasons.switch[rng.integers(0, len(seasons.switch), 50)] if len(seasons.switch) else slots[:0]
    slots = np.concatenate([slots, changes - 1, changes])
    day, week = seasons.day(slots), seasons.week(slots)
    for slot, d, w in zip(slots.tolist(), day.tolist(), week.tolist(), strict=True):
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes * slot)).astimezone(
            ZoneInfo(zone)
        )
        assert d == (60 * local.hour + local.minute) // minutes
        assert w == local.weekday() * 1440 // minutes + d


def test_shapes_are_kept_and_far_slots_are_harmless() -> None:
    seasons = Seasons.of(small())
    slots = np.array([[0, 1], [2**61, -(2**61)]], np.int64)
    assert seasons.day(slots).shape == (2, 2)
    assert ((seasons.week(slots) >= 0) & (seasons.week(slots) < 168)).all()


def test_an_unknown_zone_has_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match="Unknown time zone 'Mars/Olympus'"):
        Seasons.of(small(zone="Mars/Olympus"))
