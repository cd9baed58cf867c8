"""Release once: which slots of which unit have been shared. One ledger per raw partition, in numpy columns.

The state is rows per epoch, the epochs' headers and the journal of the changelog. `decide` reads it and
returns changes; the caller writes `records(changes)` in the batch's transaction and calls `apply` after the
commit. A ledger that lost its changes would share a slot twice, so everything in doubt is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from schemas.errors import KeyStoreError, TornError
from streams.privacy import changelog
from streams.privacy.admission import Int64, Verdict, Words, admit
from streams.privacy.changelog import Entry, Header, Journal, Packed, Record
from streams.privacy.keys import KeyChain
from streams.privacy.rows import EpochRows, States, pack, unpack

MAX_CALLS = 1 << 40  # noise calls under one key
RUN_ROWS = 8_192  # taken at once by a restore
MANY_TOMBSTONES = 4_096  # in one transaction: a year of short epochs may end at once


@dataclass(frozen=True, slots=True)
class EpochChanges:
    """Rows of one epoch that a batch changed; `header` where the batch is the epoch's first."""

    epoch: int
    tags: Words = field(repr=False)
    rows: Int64 = field(repr=False)
    states: States = field(repr=False)
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class LedgerChanges:
    """What a batch adds, computed from the state of `version`; valid for that state only."""

    version: int
    epochs: tuple[EpochChanges, ...] = ()

    def __len__(self) -> int:
        return sum(len(part.tags) for part in self.epochs)


class Ledger:
    """State of one raw partition of one contract.

    Not thread safe; only `apply`, `retire` and `restore` change it.
    """

    def __init__(self) -> None:
        self._rows: dict[int, EpochRows] = {}
        self._headers: dict[int, Header] = {}
        self._journal = Journal()
        self._version = 0

    @classmethod
    def restore(cls, values: Iterable[bytes | None]) -> Self:
        """From the values of a changelog partition in log order, tombstones as None. Raises TornError."""
        ledger, runs, rows = cls(), dict[int, list[Packed]](), 0
        for value in values:
            if value is None:
                continue
            entry = Entry.decode(value)
            if entry.header is not None:
                ledger._headers[entry.epoch] = entry.header
            if entry.journal is not None:
                ledger._journal = entry.journal
            if entry.packed is not None and len(entry.packed):
                runs.setdefault(entry.epoch, []).append(entry.packed)
                rows += len(entry.packed)
            if rows >= RUN_ROWS:
                ledger._take(runs)
                runs, rows = {}, 0
        ledger._take(runs)
        return ledger

    @property
    def version(self) -> int:
        """Goes up with every change."""
        return self._version

    @property
    def units(self) -> int:
        """Rows in memory: units by epoch."""
        return sum(rows.size for rows in self._rows.values())

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in self._rows.values())

    @property
    def epochs(self) -> list[int]:
        """Epochs with a header, ascending."""
        return sorted(self._headers)

    def header(self, epoch: int) -> Header | None:
        return self._headers.get(epoch)

    def verify(self, keys: KeyChain) -> None:
        """Refuse to start where a header's key check value does not fit the keys (docs/privacy.md).

        Raises KeyStoreError: the data folder was lost and Kafka was kept, so every replay would be noised
        anew.
        """
        for epoch, header in sorted(self._headers.items()):
            if not keys.fits(epoch, header.check):
                raise KeyStoreError(
                    f"The noise key of epoch {epoch} is not the one that the ledger was begun with: a replay "
                    "would share a second, different answer for the same events.",
                    "Restore $SLUICE_HOME/keys from its backup, or begin a new epoch with a fresh root, the "
                    "old one closed.",
                )

    def decide(
        self, epoch: int, tags: Words, units: Int64, slots: Int64, cap: int | None, calls: int
    ) -> tuple[Verdict, EpochChanges]:
        """Admit events of one epoch in log order; `tags` (U, 2) are distinct, `units` index them.

        `cap` as in `admit`; `calls` is the number of noise words an event takes, against 2^40 per key.
        """
        held = self._rows.get(epoch) or EpochRows()
        rows = held.find(tags)
        room = MAX_CALLS // max(calls, 1) - held.spent
        verdict = admit(units, slots, held.states(rows), cap, room)
        return verdict, EpochChanges(epoch, tags[verdict.units], rows[verdict.units], verdict.states)

    def changes(self, parts: Iterable[EpochChanges]) -> LedgerChanges:
        """The parts of one batch, at most one per epoch, without the empty ones."""
        return LedgerChanges(self._version, tuple(part for part in parts if len(part.tags)))

    def records(self, changes: LedgerChanges) -> list[Record]:
        """Changelog records (key, value) to write in this order in the batch's transaction.

        Values stay under 512 KiB; None is a tombstone. Does not change the ledger; empty for empty changes.
        """
        self._fresh(changes)
        if not changes.epochs:
            return []
        journal, buckets, covered = self._advance(changes)
        written: list[Record] = []
        for epoch in sorted(self._rows):
            written += changelog.pages(epoch, self._rows[epoch], buckets)
        written += [(changelog.delta_key(seq), None) for seq in covered]
        seq = self._journal.seq
        for part in changes.epochs:
            if part.header:
                value = changelog.header_value(part.epoch, part.header)
                written.append((changelog.header_key(part.epoch), value))
            for packed in changelog.parts(pack(part.tags, part.states)):
                written.append((changelog.delta_key(seq), changelog.delta_value(part.epoch, journal, packed)))
                seq += 1
        return written

    def apply(self, changes: LedgerChanges) -> None:
        """Take the changes over, after the commit."""
        self._fresh(changes)
        if not changes.epochs:
            return
        self._journal = self._advance(changes)[0]
        for part in changes.epochs:
            if part.header:
                self._headers[part.epoch] = part.header
            self._rows.setdefault(part.epoch, EpochRows()).put(part.tags, part.rows, part.states)
        self._version += 1

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state as changelog records: headers, every page, and an empty delta for the journal."""
        for epoch, header in sorted(self._headers.items()):
            yield changelog.header_key(epoch), changelog.header_value(epoch, header)
        for epoch in sorted(self._rows):
            yield from changelog.pages(epoch, self._rows[epoch], range(changelog.BUCKETS))
        if self._journal.seq:
            value = changelog.delta_value(0, self._journal, pack(np.empty((0, 2), np.uint64), _NO_STATES))
            yield changelog.delta_key(self._journal.seq - 1), value

    def retire(self, oldest: int) -> list[Record]:
        """Forget epochs below `oldest`, whose keys are destroyed; the tombstones to write next.

        The oldest first, and not all at once where they are many: call it again with the next batch.
        """
        tombstones: list[Record] = []
        for epoch in sorted(e for e in {*self._rows, *self._headers} if e < oldest):
            if len(tombstones) >= MANY_TOMBSTONES:
                break
            rows = self._rows.pop(epoch, None) or EpochRows()
            self._headers.pop(epoch, None)
            tombstones += [(key, None) for key, _ in changelog.pages(epoch, rows, range(changelog.BUCKETS))]
            tombstones.append((changelog.header_key(epoch), None))
            self._version += 1
        return tombstones

    def _advance(self, changes: LedgerChanges) -> tuple[Journal, range, range]:
        deltas = sum(-(-len(part.tags) // changelog.PART_ROWS) for part in changes.epochs)
        return self._journal.advance(deltas, len(changes), self.units)

    def _fresh(self, changes: LedgerChanges) -> None:
        if changes.version != self._version:
            raise TornError(
                "Ledger changes were computed from another state than the one they meet.",
                "Share the batch again: one batch of a partition at a time, applied after its commit.",
            )

    def _take(self, runs: dict[int, list[Packed]]) -> None:
        """What an epoch's deltas and pages say, in log order: the last row of each unit counts. Together, as a small
        delta alone costs as much as hundreds of rows.
        """
        for epoch, run in runs.items():
            packed = np.concatenate(run)
            tags, states = unpack(packed)
            order = np.lexsort((tags[:, 1], tags[:, 0]))  # stable: the newest of equal ones stays last
            ordered = tags[order]
            newest = order[np.r_[(ordered[1:] != ordered[:-1]).any(axis=1), True]]
            rows = self._rows.setdefault(epoch, EpochRows())
            rows.put(tags[newest], rows.find(tags[newest]), states.pick(newest))


_NO_STATES = States(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64))
