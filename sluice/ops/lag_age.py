"""When the record at an offset was appended, by questions that need no right to read it.

A broker tells whoever may DESCRIBE a topic the first offset whose timestamp is at least t. Append times never
fall along a log, so the record at offset o was appended at the largest t for which that offset is at most o:
bisection, exact to the millisecond, all partitions in lockstep, one request a step and broker (about 30 steps
for a week).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Where = TypeVar("Where", bound=Hashable)
# partition -> t in ms; gives per partition the first offset appended at t or later and its time, or None
Ask = Callable[[Mapping[Where, int]], Mapping[Where, tuple[int, int] | None]]


def append_times(targets: Mapping[Where, int], until_ms: int, ask: Ask[Where]) -> dict[Where, int]:
    """Append time in epoch ms of the record at each target offset; for an offset without one, of the last
    before it.

    `until_ms` is any time after the last append; later ones count as that. Partitions that `ask` does not
    answer for, or that begin after their target, are left out. Not meaningful with CreateTime, whose
    timestamps may fall.
    """
    since = {
        where: found[1]
        for where, found in ask(dict.fromkeys(targets, 0)).items()
        if found is not None and found[0] <= targets[where]
    }
    until = {where: max(until_ms, time + 1) for where, time in since.items()}
    while probes := {w: (since[w] + until[w]) // 2 for w in since if until[w] - since[w] > 1}:
        answers = ask(probes)
        for where, time in probes.items():
            found = answers.get(where)
            if found is None or found[0] > targets[where]:
                until[where] = time
            else:
                since[where] = max(time, min(found[1], until[where] - 1))
    return since
