"""Admission by sorting equals admission one by one, for any batch, state, bound and split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.privacy.admission import ADMITTED, EXHAUSTED, SLOT_OLD, SLOT_USED, SPENT, admit
from streams.privacy.rows import NEVER, States

UNITS = 4
EVENTS = st.lists(
    st.tuples(st.integers(0, UNITS - 1), st.one_of(st.integers(-3, 8), st.integers(-200, 200))), max_size=60
)


class OneByOne:
    """docs/privacy.md, word for word."""

    def __init__(self, cap: int | None, room: int) -> None:
        self.cap, self.room = cap, room
        self.rows = {unit: [NEVER, 0, 0] for unit in range(UNITS)}

    def decide(self, unit: int, slot: int) -> int:
        row = self.rows[unit]
        hi, mask, used = row
        if self.room <= 0:
            return EXHAUSTED
        if self.cap is not None and used >= self.cap:
            return SPENT
        if slot > hi:
            row[:] = [slot, (mask << min(slot - hi, 64) | 1) & (2**64 - 1), used + 1]
        elif hi - slot >= 64:
            return SLOT_OLD
        elif mask >> (hi - slot) & 1:
            return SLOT_USED
        else:
            row[:] = [hi, mask | 1 << (hi - slot), used + 1]
        self.room -= 1
        return ADMITTED


def empty() -> States:
    return States(np.full(UNITS, NEVER), np.zeros(UNITS, np.uint64), np.zeros(UNITS, np.int64))


@settings(max_examples=600, deadline=None)
@given(
    EVENTS,
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(0, 70),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_equals_one_by_one(
    events: list[tuple[int, int]], cap: int | None, room: int, cuts: list[int]
) -> None:
    oracle = OneByOne(cap, room)
    expected = [oracle.decide(unit, slot) for unit, slot in events]
    found: list[int] = []
    states, left = empty(), room
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, stop in pairwise(edges):
        unit = np.array([u for u, _ in events[start:stop]], np.int64)
        slot = np.array([s for _, s in events[start:stop]], np.int64)
        verdict = admit(unit, slot, states, cap, left)
        for name in ("hi", "mask", "used"):
            getattr(states, name)[verdict.units] = getattr(verdict.states, name)
        found += verdict.codes.tolist()
        left -= int(np.count_nonzero(verdict.codes == ADMITTED))
    assert found == expected
    rows = list(zip(states.hi.tolist(), states.mask.tolist(), states.used.tolist(), strict=True))
    assert rows == [tuple(row) for row in oracle.rows.values()]
