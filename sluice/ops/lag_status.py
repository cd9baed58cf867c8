"""Whether a consumer group keeps up: a pure function of what was seen of its offsets and a passed-in now.

The rules are Burrow's ("Consumer Lag Evaluation Rules" in linkedin/Burrow's wiki;
core/internal/evaluator/caching.go): no thresholds, only whether offsets move and lag falls within a window.
One difference: Burrow reads every commit with its time out of Kafka's offsets topic, we ask from time to
time. A commit that changes nothing cannot be seen so; a group with members counts as committing at every
look, one without members as not committing.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

WINDOW_LOOKS = 10  # Burrow's default number of intervals
WINDOW_MS = 60_000
LEAST_LOOKS = 5  # before a lag that does not fall is called anything

# Topics that only transactions fill (docs/architecture.md): a contract's, and those a trainer writes.
_TRANSACTIONAL = re.compile(
    r".+\.(?:raw|shared|dlq|ledger|source)\.v[0-9]+|models\..+?(?:\.(?:chunks|forecasts|record))?\.v[0-9]+"
)
_ACKS = re.compile(r"models\..+\.acks\.v[0-9]+")


class Status(Enum):
    """Burrow's words, from good to bad."""

    OK = "OK"
    WARN = "WARN"
    REWIND = "REWIND"
    STALL = "STALL"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class Look:
    """One commit as seen at `at_ms` (of a steady clock): committed offset and messages waiting behind it."""

    at_ms: int
    offset: int
    messages: int


def is_transactional(topic: str) -> bool:
    """Whether a transaction's marker always is the last thing below the topic's last stable offset."""
    return _TRANSACTIONAL.fullmatch(topic) is not None and _ACKS.fullmatch(topic) is None


def waiting(committed: int | None, low: int, end: int, transactional: bool) -> int:
    """Messages between the committed offset and the last stable offset `end`; `low` is the first offset still
    there.

    A client commits the offset after the last record that it got, and markers are no records: behind a group
    that has read everything stands one offset, the last transaction's marker. It is not counted. Markers of
    earlier transactions, aborted records and what compaction took are, as nobody without READ can tell them
    from messages: the count is an upper bound until the group has passed them.
    """
    offsets = end - _from(committed, low)
    return max(0, offsets - 1 if transactional else offsets)


def oldest_unread(committed: int | None, low: int, transactional: bool) -> int:
    """The offset whose append time says how long the group is behind; only meaningful where something is
    waiting.

    Behind a group that paused after a transaction stands the old marker and then the new records: the offset
    after the first one. Where that first one is a record after all, its own marker follows within the
    transaction's time.
    """
    return _from(committed, low) + (1 if transactional else 0)


def expired(committed: int | None, low: int) -> int:
    """Offsets that retention removed before the group had read them."""
    return 0 if committed is None else max(0, low - committed)


def _from(committed: int | None, low: int) -> int:
    return low if committed is None else max(committed, low)


def judge(window: Sequence[Look], messages: int, now_ms: int, alive: bool) -> Status | None:
    """The state of one partition of one group, from the commits seen in the window (oldest first); None: too
    early.

    `alive`: the group has members. Rule 1: lag was zero at some time: OK. 2: an offset went back: REWIND. 3:
    the last commit is longer ago than the window's commits span: STOP. 4: commits do not move: STALL. 5: they
    move, but lag never falls: WARN.
    """
    if messages == 0 or any(look.messages == 0 for look in window):
        return Status.OK
    steps = list(itertools.pairwise(window))
    if any(after.offset < before.offset for before, after in steps):
        return Status.REWIND
    if not alive and (len(window) < 2 or now_ms - window[-1].at_ms > window[-1].at_ms - window[0].at_ms):
        return Status.STOP
    falls = any(after.messages < before.messages for before, after in steps)
    if len(window) < LEAST_LOOKS:
        return Status.OK if falls and window[-1].offset > window[0].offset else None
    if window[-1].offset == window[0].offset:
        return Status.STALL
    return Status.OK if falls else Status.WARN


@dataclass(slots=True)
class History:
    """The window of one partition of one group, filled look by look."""

    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=WINDOW_LOOKS))

    def add(self, look: Look, alive: bool) -> None:
        """Keep a look that is a commit; forget commits that are older than WINDOW_MS."""
        if alive or not self.looks or look.offset != self.looks[-1].offset:
            self.looks.append(look)
        while self.looks and look.at_ms - self.looks[0].at_ms > WINDOW_MS:
            self.looks.popleft()


def worst(found: Sequence[Status | None]) -> Status | None:
    """A group's status from its partitions'. None (too early) is better than WARN and worse than OK."""
    order = [Status.OK, None, Status.WARN, Status.REWIND, Status.STALL, Status.STOP]
    return max(found, key=order.index, default=Status.OK)
