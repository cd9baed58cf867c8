"""What the threads of one transactional pipe know together: epoch, positions, failures, the end."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from schemas.errors import FatalError
from streams.kafka.fit import Fit
from streams.kafka.records import Records, Source

DOOMED_IN_A_ROW = 20
ENOUGH_RECORDS = 50_000  # no transaction is larger
SIZE_BEHIND = 64  # one at a time, the rest of 14,000 records would take a minute


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes and times that are worth changing; the defaults are the measured ones."""

    # What fits the processor's cache and Python's memory pools: 3.5 CPU s per million. With 50,000, whose pages go back
    # to the system after each batch, 4.9.
    batch_records: int = 14_000
    batch_bytes: int = 16 << 20
    transaction_timeout_ms: int = 10_000
    session_timeout_ms: int = 3_000
    heartbeat_ms: int = 1_000


@dataclass(slots=True)
class Suspect:
    """Somewhere in `[start, end)` a record made its handler fail: hand out at most `size` at a time."""

    start: int
    end: int
    size: int


@dataclass(slots=True)
class Session:
    """`epoch` goes up at every assignment, revocation and reset; work of an older one is dropped.

    `positions` says for each restored partition where its next transaction must start. `quiet` is held while
    a transaction is open: who acquires it knows that none is, and that the state changes of the last one are
    applied.
    """

    epoch: int = 0
    positions: dict[Source, int] = field(default_factory=dict)
    stopped: dict[Source, Exception] = field(default_factory=dict)  # torn, as their restore found
    standing: dict[Source, Exception] = field(
        default_factory=dict
    )  # a transaction that nobody ends holds them
    outputs: dict[Source, set[Source]] = field(default_factory=dict)  # where results of a source went
    suspects: dict[Source, Suspect] = field(default_factory=dict)
    doomed: dict[Source, set[int]] = field(default_factory=dict)
    in_a_row: int = 0
    fit: Fit = field(default_factory=lambda: Fit(ENOUGH_RECORDS))
    quiet: threading.RLock = field(default_factory=threading.RLock)
    stopping: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self) -> int:
        """A new epoch; positions are unknown until restored."""
        with self._lock:
            self.epoch += 1
            self.positions.clear()
            return self.epoch

    def ready(self, epoch: int, source: Source, position: int) -> bool:
        """The state of `source` is restored up to `position`. False: that epoch is over."""
        with self._lock:
            if epoch != self.epoch:
                return False
            self.positions[source] = position
            return True

    def halted(self, sources: Collection[Source]) -> Exception | None:
        """Why none of these can go on; None where one can, or where there are none."""
        reasons = {**self.stopped, **self.standing}
        if not sources or not reasons.keys() >= set(sources):
            return None
        return next(reasons[source] for source in sources)

    def moved(self, records: Records) -> None:
        """These records are committed."""
        with self._lock:
            if records.epoch == self.epoch:
                self.positions[records.source] = records.next
        if self.in_a_row and not records.doomed.issuperset(records.offsets):
            self.in_a_row = 0
        suspect = self.suspects.get(records.source)
        if suspect is not None and records.next >= suspect.end:
            del self.suspects[records.source]
        if doomed := self.doomed.get(records.source):
            self.doomed[records.source] = {offset for offset in doomed if offset >= records.next}

    def suspect(self, records: Records) -> None:
        """The handler failed on these records: halve until one record is left, which is doomed at its next
        failure.

        That is for a few bad records. It ends in a FatalError where the fault is not theirs: where a doomed one
        cannot be made a dead letter either, or where so many in a row are doomed that all would be.
        """
        known = self.suspects.get(records.source)
        if len(records) <= 1:
            if records.doomed.issuperset(records.offsets):
                self.fail(
                    FatalError(
                        f"The handler fails on {records.source} at offset {records.start}, also as a dead letter.",
                        "This is a fault of the program: keep the log, and report it with this offset.",
                    )
                )
                return
            self.in_a_row += 1
            if self.in_a_row > DOOMED_IN_A_ROW:
                self.fail(
                    FatalError(
                        f"The handler fails on every record of {records.source}, now at offset {records.start}; "
                        f"{DOOMED_IN_A_ROW} are dead letters.",
                        "The fault is not in the records: see the errors above. Nothing else was set aside.",
                    )
                )
                return
            self.doomed.setdefault(records.source, set()).update(records.offsets)
            if known is not None:
                self.suspects[records.source] = Suspect(known.start, known.end, SIZE_BEHIND)
            return
        end = max(records.next, known.end) if known else records.next
        self.suspects[records.source] = Suspect(records.start, end, max(1, len(records) // 2))

    def fail(self, error: BaseException) -> None:
        """Nothing more can be done: every thread stops, and the caller of `next` gets the error."""
        if self.error is None:
            self.error = error
        self.stopping.set()
