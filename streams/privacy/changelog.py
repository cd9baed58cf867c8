"""The ledger as records of a compacted topic: deltas with every batch, and pages in turn that let deltas go.

    key b"H" epoch              key check value, partition count, C digest        what an epoch was begun with
    key b"P" epoch bucket part  rows of the tags that begin with that byte        a page
    key b"D" seq                journal, then the rows that a batch changed       a delta

Every value is MAGIC, kind, i64 epoch, body, and sets rows to newer states: reading all values in log order
gives the state exactly, whatever compaction has removed by then. A batch writes, in this order: some pages
as they were *before* it, tombstones of the deltas that a finished round of pages covers, headers, deltas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TornError
from streams.privacy.rows import ROW, EpochRows
from streams.privacy.words import i64, u32

Packed = NDArray[np.void]
Record = tuple[bytes, bytes | None]

MAGIC = b"SL\x01"
HEAD = len(MAGIC) + 1 + 8
PART_ROWS = 14_000  # of 36 bytes: a value stays under 512 KiB
BUCKETS = 256
CREDIT = 1 << 16  # credit is counted in 65536ths of a bucket
SLOWEST = 1024  # batches after which a round of pages ends at the latest
SHARE = 4  # pages add at most a quarter to what deltas write


@dataclass(frozen=True, slots=True)
class Header:
    """What an epoch was begun with; events are denied when it changes within the epoch."""

    check: bytes = field(repr=False)
    partitions: int
    c_digest: bytes


@dataclass(frozen=True, slots=True)
class Journal:
    """Where the rolling snapshot stands.

    `seq` is the next delta; deltas from `floor` on are still needed; the round of pages that began before
    delta `start` has written the buckets below `cursor`.
    """

    seq: int = 0
    floor: int = 0
    start: int = 0
    cursor: int = 0
    credit: int = 0

    def advance(self, deltas: int, changed: int, total: int) -> tuple[Journal, range, range]:
        """The journal after a batch of `deltas` with `changed` rows on a ledger of `total` rows, the buckets
        whose pages it writes, and the deltas that these pages make superfluous."""
        earned = min(BUCKETS * CREDIT, BUCKETS * CREDIT * changed // (SHARE * max(total, 1)))
        credit = self.credit + max(earned, BUCKETS * CREDIT // SLOWEST)
        until = min(BUCKETS, self.cursor + credit // CREDIT)
        buckets = range(self.cursor, until)
        seq = self.seq + deltas
        if until < BUCKETS:
            return Journal(seq, self.floor, self.start, until, credit % CREDIT), buckets, range(0)
        # The next round's pages stand behind this batch: they will cover every delta below `seq`.
        return Journal(seq, self.start, seq, 0, credit % CREDIT), buckets, range(self.floor, self.start)


def header_key(epoch: int) -> bytes:
    return b"H" + i64(epoch)


def delta_key(seq: int) -> bytes:
    return b"D" + i64(seq)


def header_value(epoch: int, header: Header) -> bytes:
    return b"".join((MAGIC, b"H", i64(epoch), header.check, u32(header.partitions), header.c_digest))


def delta_value(epoch: int, journal: Journal, packed: Packed) -> bytes:
    numbers = (journal.seq, journal.floor, journal.start, journal.cursor, journal.credit)
    return b"".join((MAGIC, b"D", i64(epoch), *map(i64, numbers), packed.tobytes()))


def parts(packed: Packed) -> list[Packed]:
    """Cut so that each part fits into one value."""
    return [packed[at : at + PART_ROWS] for at in range(0, len(packed), PART_ROWS)]


def pages(epoch: int, rows: EpochRows, buckets: range) -> Iterator[tuple[bytes, bytes]]:
    """Pages of these buckets, each sorted by tag; a bucket without rows has none."""
    if not buckets:  # as in three of four small batches: rows are looked through for nothing
        return
    packed = rows.packed(buckets.start, buckets.stop)
    firsts = np.ascontiguousarray(packed["tag"]).view(np.uint8).reshape(-1, 16)[:, 0]
    edges = np.searchsorted(firsts, np.arange(buckets.start, buckets.stop + 1)).tolist()
    for bucket, low, high in zip(buckets, edges[:-1], edges[1:], strict=True):
        for number, part in enumerate(parts(packed[low:high])):
            key = b"P" + i64(epoch) + bytes([bucket]) + number.to_bytes(2, "big")
            yield key, b"".join((MAGIC, b"P", i64(epoch), part.tobytes()))


@dataclass(frozen=True, slots=True)
class Entry:
    """One changelog value: an epoch's header, or rows of it, with the journal where they are a delta."""

    epoch: int
    header: Header | None = None
    packed: Packed | None = None
    journal: Journal | None = None

    @classmethod
    def decode(cls, value: bytes) -> Entry:
        """Raises TornError where the value is not one of ours."""
        kind, body = value[3:4], value[HEAD:]
        if value[:3] == MAGIC and len(value) >= HEAD:
            epoch = int.from_bytes(value[4:HEAD], "big", signed=True)
            if kind == b"H" and len(body) == 52:
                return cls(epoch, Header(body[:16], int.from_bytes(body[16:20], "big"), body[20:]))
            if kind == b"P" and len(body) % ROW.itemsize == 0:
                return cls(epoch, packed=np.frombuffer(body, ROW))
            if kind == b"D" and len(body) >= 40 and (len(body) - 40) % ROW.itemsize == 0:
                journal = Journal(*np.frombuffer(body[:40], ">i8").tolist())
                return cls(epoch, packed=np.frombuffer(body[40:], ROW), journal=journal)
        raise TornError(
            "A record of the ledger's changelog cannot be read.",
            "Nothing may write to a ledger topic but its share agent; `sluice doctor` explains.",
        )
