"""Raw in, shared out: the one function that turns a `RawBatch` into a `SharedBatch`. Read this first.

    raw events -> reject what has no key, time or unit          (dead letters)
               -> deny by clock, epoch, key, ledger             (counted, never stored)
               -> noise private fields, project public ones     (the shared batch)

`share()` is pure: it reads the ledger and the keys and returns the ledger's changes. A caller commits
outputs, changelog records and offsets in one transaction and applies the changes after the commit:

    shared = share(batch, plan, keys, ledger)
    records = ledger.records(shared.changes)     # for the compacted changelog, in this order
    ...                                          # commit
    ledger.apply(shared.changes)

Every decision depends on the log up to its event only, never on where a batch begins or ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streams.privacy.admission import REASONS
from streams.privacy.changelog import Header
from streams.privacy.draws import Draws, EpochDraws
from streams.privacy.grid import integers
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import EpochChanges, Ledger, LedgerChanges
from streams.privacy.plan import Plan
from streams.privacy.tags import Names, shorts
from streams.privacy.units import Units, units

Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]

MAX_TIME_MS = 253_402_300_800_000  # the year 10000; JSON times end there
CLOCK, FUTURE, CLOSED, PRIVACY, PARTITIONS, KEY, VERSION = range(16, 23)
DENIED = {
    **REASONS,
    CLOCK: "no-clock",
    FUTURE: "epoch-future",
    CLOSED: "epoch-closed",
    PRIVACY: "privacy-changed",
    PARTITIONS: "partitions-changed",
    KEY: "key-changed",
    VERSION: "version-changed",
}
NO_KEY, NO_TIME, NO_UNIT, TIME_RANGE, OTHER_KEY, MISPLACED = range(32, 38)
REJECTED = {
    NO_KEY: "null-key",
    NO_TIME: "null-time",
    NO_UNIT: "null-unit",
    TIME_RANGE: "time-out-of-range",
    OTHER_KEY: "key-mismatch",
    MISPLACED: "wrong-partition",
}


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Decoded raw events in log order. Raw side of the wall: never logged, never sent.

    `columns`: the contract's raw fields. `keys`: the records' keys (UTF-8 of the key field), None when
    unknown; a record whose key differs from its key field is rejected. `clock_ms`: int64 per row, the last
    clock record before that row in the log, -1 where there was none. `partition`: where the records lie, None
    when they come from no topic; a unit that does not live there is rejected.
    """

    columns: pa.RecordBatch = field(repr=False)
    keys: list[bytes] | None = field(repr=False)
    clock_ms: Int64 = field(repr=False)
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """Privatized columns in the contract's order, before mapping. Only `share()` makes one."""

    columns: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Shared:
    """What became of a raw batch. Row numbers are positions in the raw batch, ascending.

    `denied` counts by reason, `denied_rows` says which; denied events are counted, never stored. `rejected`
    rows have a broken key, time or unit and belong to the dead letters. `notes` counts what was clamped or
    replaced in shared rows, as `field.what`: owner's side only.
    """

    batch: SharedBatch
    shared_rows: Int64
    denied: dict[str, int]
    denied_rows: Int64
    rejected: list[tuple[int, str]]
    changes: LedgerChanges
    notes: dict[str, int]

    @property
    def shared(self) -> pa.RecordBatch:
        """The privatized columns, for `schemas.mapping.Mapping.apply`."""
        return self.batch.columns


def share(
    batch: RawBatch,
    plan: Plan,
    keys: KeyChain | None,
    ledger: Ledger,
    owns: Callable[[int], bool] | None = None,
) -> Shared:
    """Decide, noise and project one batch of one partition. Never raises because of what a record holds.

    `keys` may be None where the plan's mode is `open`: nothing is noised, and neither clock nor ledger is
    asked. `owns` is asked once before the ledger begins an epoch (`Versions.own`); its answer for an epoch must
    never change.
    """
    codes = _broken(batch, plan)
    time = integers(batch.columns.column(plan.time))
    slots = time // plan.grid_ms
    if plan.mode == "open" or keys is None:
        if plan.mode != "open":
            raise ValueError("this plan needs keys")
        rows = np.flatnonzero(codes == 0)
        return _result(batch, plan, None, codes, rows, Draws(slots[rows], ()), ledger.changes(()))
    unit = plan.unit or (plan.key,)
    who = units([batch.columns.column(name) for name in unit], plan.normalise)
    if batch.partition is not None and (plan.partitions > 1 or batch.partition > 0):
        codes[(codes == 0) & (who.homes(plan.partitions) != batch.partition)] = MISPLACED
    epochs = (time - plan.anchor_ms) // plan.length_ms
    _out_of_time(codes, epochs, batch.clock_ms, plan, keys)
    parts, draws = _admit(codes, epochs, slots, who, plan, keys, ledger, owns)
    rows = np.flatnonzero(codes == 0)
    draw = Draws(slots[rows], draws, unit[0] if who.as_is else "")
    return _result(batch, plan, keys, codes, rows, draw, ledger.changes(parts))


def _broken(batch: RawBatch, plan: Plan) -> Codes:
    """Rows without a readable key, time or unit, or whose record key is not their key field."""
    columns = batch.columns
    codes = np.zeros(columns.num_rows, np.uint8)
    key, time = columns.column(plan.key), columns.column(plan.time)
    if batch.keys is not None:
        same = pc.equal(pa.array(batch.keys, pa.binary()), key.cast(pa.string()).cast(pa.binary()))
        if same.null_count or not pc.all(same).as_py():
            codes[~same.fill_null(False).to_numpy(zero_copy_only=False)] = OTHER_KEY
    far = integers(time)
    codes[(far < -MAX_TIME_MS) | (far >= MAX_TIME_MS)] = TIME_RANGE
    for name, code in (*((name, NO_UNIT) for name in plan.unit), (plan.time, NO_TIME), (plan.key, NO_KEY)):
        if columns.column(name).null_count:
            codes[columns.column(name).is_null().to_numpy(zero_copy_only=False)] = code
    return codes


def _out_of_time(codes: Codes, epochs: Int64, clock_ms: Int64, plan: Plan, keys: KeyChain) -> None:
    """Deny before the first clock, later than the clock's next epoch, and in closed epochs."""
    now = np.clip(clock_ms, -1, MAX_TIME_MS)
    ends = (epochs + 1) * plan.length_ms + plan.anchor_ms
    good = codes == 0
    codes[good & ((ends + plan.keep_raw_ms < now) | (epochs < keys.oldest))] = CLOSED
    codes[good & (epochs > (now - plan.anchor_ms) // plan.length_ms + 1)] = FUTURE
    codes[good & (clock_ms < 0)] = CLOCK


def _admit(
    codes: Codes,
    epochs: Int64,
    slots: Int64,
    who: Units,
    plan: Plan,
    keys: KeyChain,
    ledger: Ledger,
    owns: Callable[[int], bool] | None,
) -> tuple[list[EpochChanges], tuple[EpochDraws, ...]]:
    """Ask the ledger, epoch by epoch.

    Fills in `codes`, returns its changes and the key behind each shared row.
    """
    parts: list[EpochChanges] = []
    found: list[tuple[int, Int64, Names, Int64, NDArray[np.uint64]]] = []
    alive = np.flatnonzero(codes == 0)
    for epoch in np.unique(epochs[alive]).tolist():
        rows = alive[epochs[alive] == epoch]
        header = Header(keys.check_value(epoch), plan.partitions, plan.c_digest)
        begun = ledger.header(epoch)
        if begun is not None and begun != header:
            codes[rows] = _why(begun, header)
            continue
        if begun is None and owns is not None and not owns(epoch):
            codes[rows] = VERSION
            continue
        some, unit, short = who.names, who.codes, None
        if len(rows) < len(codes):
            picked, unit = np.unique(who.codes[rows], return_inverse=True)
            some = who.pick(picked)
        elif who.texts is not None:
            short = shorts(who.texts)
        names = keys.names(epoch)
        ids = names.ids(some, short)
        tags = names.tags(keys.unit_key(epoch), ids)
        calls = plan.calls * plan.partitions  # one noise key serves all partitions
        verdict, changes = ledger.decide(epoch, tags, unit, slots[rows], plan.cap, calls)
        codes[rows] = verdict.codes
        parts.append(changes if begun else replace(changes, header=header))
        mine = unit[verdict.codes == 0]
        found.append((epoch, rows[verdict.codes == 0], names, ids[mine], tags[mine]))
    place = np.cumsum(codes == 0) - 1
    draws = tuple(
        EpochDraws(epoch, place[rows], names, ids, prf, prf.first_pass(tags))
        for epoch, rows, names, ids, tags in found
        if len(rows)
        for prf in [keys.prf(plan.topic, plan.major, epoch, plan.c_digest)]
    )
    return parts, draws


def _why(begun: Header, header: Header) -> int:
    if begun.check != header.check:
        return KEY
    return PRIVACY if begun.c_digest != header.c_digest else PARTITIONS


def _result(
    batch: RawBatch,
    plan: Plan,
    keys: KeyChain | None,
    codes: Codes,
    rows: Int64,
    draws: Draws,
    changes: LedgerChanges,
) -> Shared:
    notes: Counter[str] = Counter()
    take = None if len(rows) == len(codes) else pa.array(rows)
    arrays = []
    for one in plan.fields:
        column = batch.columns.column(one.name)
        arrays.append(one.project(column if take is None else column.take(take), draws, keys, notes))
    shared = pa.RecordBatch.from_arrays(arrays, names=[one.name for one in plan.fields])
    denied_rows = np.flatnonzero((codes > 0) & (codes < NO_KEY))
    counts = np.bincount(codes[denied_rows], minlength=NO_KEY)
    rejected = np.flatnonzero(codes >= NO_KEY)
    return Shared(
        batch=SharedBatch(shared),
        shared_rows=rows,
        denied={reason: int(counts[code]) for code, reason in DENIED.items() if counts[code]},
        denied_rows=denied_rows,
        rejected=[
            (row, REJECTED[code])
            for row, code in zip(rejected.tolist(), codes[rejected].tolist(), strict=True)
        ],
        changes=changes,
        notes=dict(+notes),
    )
