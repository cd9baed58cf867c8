"""Raw in, shared out: the one function that turns a `RawBatch` into a `SharedBatch`. Read this first.

    batch of raw events -> reject what has no key, time or unit   (dead letters)
                        -> deny by clock, epoch, key, ledger      (counted, never stored)
                        -> noise every private field, replay-stable, and put the public ones beside it

`share()` is pure: it reads the ledger and the keys and returns the ledger's changes. A caller commits outputs, changelog
records and offsets in one transaction and applies the changes after the commit:

    shared = share(batch, plan, keys, ledger)
    records = ledger.records(shared.changes)     # write to the compacted changelog, in this order
    ... commit ...
    ledger.apply(shared.changes)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger, LedgerChanges
from streams.privacy.plan import Plan


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Decoded raw events in log order. Raw side of the wall: never logged, never sent.

    `columns`: the contract's raw fields. `keys`: the records' keys (UTF-8 of the key field) or None when unknown; a key
    that differs from its key field is rejected. `clock_ms`: int64 per row, the last clock record before that row in
    the log, -1 where there was none.
    """

    columns: pa.RecordBatch = field(repr=False)
    keys: list[bytes] | None = field(repr=False)
    clock_ms: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """Privatized columns, before mapping. Only `share()` makes one."""

    columns: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Shared:
    """What became of a raw batch. Row numbers are positions in the raw batch, ascending.

    `denied` counts by reason, `denied_rows` says which; denied events are counted, never stored. `rejected` rows have a
    broken key, time or unit and belong to the dead letters. `notes` counts what was clamped or replaced, per field: owner's
    side only.
    """

    batch: SharedBatch
    shared_rows: np.ndarray
    denied: dict[str, int]
    denied_rows: np.ndarray
    rejected: list[tuple[int, str]]
    changes: LedgerChanges
    notes: dict[str, int]

    @property
    def shared(self) -> pa.RecordBatch:
        """The privatized columns, ready for `schemas.mapping.Mapping.apply`."""
        return self.batch.columns


def share(batch: RawBatch, plan: Plan, keys: KeyChain, ledger: Ledger) -> Shared:
    """Decide, noise and project one batch. Never raises because of what a record holds."""
    raise NotImplementedError
