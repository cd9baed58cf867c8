"""Release once, for a whole batch at a time, exactly as if its events came one by one in log order.

An event is admitted iff its unit has used < m (where the ledger holds the bound) and its slot is above hi,
or less than 64 below it with its bit free (docs/privacy.md). Two facts make the loop a few sorts:

- Without m, a slot above hi is always admitted, so hi before an event is the largest of the start's hi and
  of all earlier slots of its unit in the batch; a slot was used before iff the start's mask says so or an
  earlier event of the batch has it.
- With m, the first events that would be admitted are admitted until m is reached, and none after; until
  then both runs are the same, and after it hi and mask no longer matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.privacy.rows import States

Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
Bool = NDArray[np.bool_]
ADMITTED, SLOT_USED, SLOT_OLD, SPENT, EXHAUSTED = range(5)
REASONS = {
    SLOT_USED: "slot-used",
    SLOT_OLD: "slot-too-old",
    SPENT: "contribution-spent",
    EXHAUSTED: "epoch-exhausted",
}
WINDOW = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """`codes` per event (ADMITTED or a reason); `units` that changed, ascending, and their new states."""

    codes: NDArray[np.uint8] = field(repr=False)
    units: Int64 = field(repr=False)
    states: States = field(repr=False)


def admit(units: Int64, slots: Int64, before: States, cap: int | None, room: int) -> Verdict:
    """Decide events in log order.

    `units` are 0 .. U-1 (indices into `before`), `slots` i64 above NEVER; `cap` is m or None where the
    ledger does not hold it; at most `room` events are admitted in all (what is left of 2^40 noise calls).
    """
    n, count = len(units), np.bincount(units, minlength=len(before.hi))
    start = before.pick(units)
    gap = start.hi - slots
    used_before = _bit(start.mask, gap)
    old = gap >= WINDOW
    earlier: Int64 = np.zeros(n, np.int64)  # events of the same unit admitted earlier in this batch
    many = np.flatnonzero(count[units] > 1) if n > len(count) or count.max(initial=0) > 1 else units[:0]
    if len(many):
        _several(many, units, slots, start, used_before, old, earlier)
    codes = np.where(old, SLOT_OLD, np.where(used_before, SLOT_USED, ADMITTED)).astype(np.uint8)
    if cap is not None:
        codes[start.used + earlier >= cap] = SPENT
    if n > room:
        admitted = codes == ADMITTED
        codes[np.cumsum(admitted) - admitted >= room] = EXHAUSTED
    return Verdict(codes, *_after(units, slots, codes == ADMITTED, before, count))


def _several(
    many: Int64, units: Int64, slots: Int64, start: States, used: Bool, old: Bool, earlier: Int64
) -> None:
    """Correct `used`, `old`, `earlier` in place for events whose unit has more than one in the batch."""
    order = many[np.argsort(units[many], kind="stable")]  # unit by unit, each in log order
    unit, slot, hi = units[order], slots[order], start.hi[order]
    first = np.concatenate([[True], unit[1:] != unit[:-1]])
    group = np.cumsum(first) - 1
    values, rank = np.unique(np.concatenate([slot, hi[first]]), return_inverse=True)
    rank, base = rank[: len(slot)], rank[len(slot) :]

    ahead = np.empty_like(rank)  # rank of the slot before, or of the start's hi: its running maximum is hi
    ahead[1:], ahead[first] = rank[:-1], base
    highest = np.maximum.accumulate(group * len(values) + ahead) - group * len(values)
    old[order] = values[highest] - slot >= WINDOW

    again = np.ones(len(slot), np.bool_)
    again[np.unique(group * len(values) + rank, return_index=True)[1]] = False
    used[order] |= again

    admitted = ~(old[order] | used[order])
    total: Int64 = np.cumsum(admitted) - admitted
    earlier[order] = total - total[first][group]


def _after(units: Int64, slots: Int64, admitted: Bool, before: States, count: Int64) -> tuple[Int64, States]:
    """Units with an admitted event, and their states after the batch."""
    unit, slot = units[admitted], slots[admitted]
    if len(unit) > 1 and not (unit[1:] > unit[:-1]).all():
        order = np.argsort(unit, kind="stable")
        unit, slot = unit[order], slot[order]
    if not len(unit):
        return unit, before.pick(unit)
    heads = np.flatnonzero(np.concatenate([[True], unit[1:] != unit[:-1]]))
    changed = unit[heads]
    was = before.pick(changed)
    sizes = np.diff(np.append(heads, len(unit)))
    hi = np.maximum(was.hi, np.maximum.reduceat(slot, heads))
    back = np.repeat(hi, sizes) - slot
    bits = np.where(
        back < WINDOW, np.uint64(1) << np.minimum(back, WINDOW - 1).astype(np.uint64), np.uint64(0)
    )
    risen = hi - was.hi
    kept = was.mask << np.minimum(risen, WINDOW - 1).astype(np.uint64)
    kept = np.where(risen < WINDOW, kept, np.uint64(0))
    return changed, States(hi, kept | np.bitwise_or.reduceat(bits, heads), was.used + sizes)


def _bit(mask: NDArray[np.uint64], gap: Int64) -> Bool:
    """Whether the bit `gap` slots below hi is set; False above hi and beyond the window."""
    shifted = mask >> np.clip(gap, 0, WINDOW - 1).astype(np.uint64)
    return (shifted & np.uint64(1)).astype(np.bool_) & (gap >= 0) & (gap < WINDOW)
