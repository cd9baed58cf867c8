"""Append times by bisection, against a log that is there to look at."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from sluice.ops.lag_age import append_times

DAY_MS = 86_400_000
LOGS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, DAY_MS)), min_size=1, max_size=30)


def log_of(steps: list[tuple[int, int]], start_ms: int) -> list[tuple[int, int]]:
    """(offset, append time): offsets with gaps, times that never fall."""
    found, offset, time = [], 0, start_ms
    for gap, later in steps:
        offset, time = offset + gap, time + later
        found.append((offset, time))
    return found


@given(st.dictionaries(st.integers(0, 3), LOGS), st.integers(0, 2 * 10**12), st.integers(-3, 160))
def test_the_bisection_finds_what_the_log_says(
    logs: dict[int, list[tuple[int, int]]], start_ms: int, target: int
) -> None:
    found = {partition: log_of(steps, start_ms) for partition, steps in logs.items()}
    asked = 0

    def ask(times: Mapping[int, int]) -> dict[int, tuple[int, int] | None]:
        nonlocal asked
        asked += 1
        return {p: next(((o, t) for o, t in found[p] if t >= times[p]), None) for p in times}

    until_ms = start_ms + 31 * DAY_MS
    got = append_times(dict.fromkeys(found, target), until_ms, ask)
    for partition, records in found.items():
        before = [time for offset, time in records if offset <= target]
        assert got.get(partition) == (before[-1] if before else None)
    assert asked <= 36  # lockstep: 31 days in ms are 2^32


def test_a_partition_that_does_not_answer_is_left_out() -> None:
    assert append_times({"gone": 5}, 1000, lambda times: {}) == {}
    assert append_times({}, 1000, lambda times: {}) == {}


def test_a_clock_that_is_behind_the_brokers() -> None:
    found = append_times({"p": 3}, 10, lambda times: {"p": (0, 500) if times["p"] <= 500 else None})
    assert found == {"p": 500}
