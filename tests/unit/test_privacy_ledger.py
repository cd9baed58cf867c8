"""Release once: rows, changelog and restore, beside ledgers that are broken on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from schemas.errors import KeyStoreError, TornError
from streams.privacy import changelog
from streams.privacy.admission import ADMITTED, EXHAUSTED, SLOT_OLD, SLOT_USED, SPENT
from streams.privacy.changelog import Header, Journal, Record
from streams.privacy.ledger import MAX_CALLS, EpochChanges, Ledger, LedgerChanges
from streams.privacy.rows import EpochRows, States
from streams.privacy.words import i64
from tests.privacy_cases import EPOCH, chain

HEADER = Header(bytes(16), 1, bytes(32))


def tags(numbers: Iterable[int]) -> np.ndarray:
    """Uniform-looking tags for small numbers."""
    rng = np.random.default_rng(1)
    mix = rng.integers(0, 2**63, 2, dtype=np.uint64)
    n = np.array(list(numbers), np.uint64)
    with np.errstate(over="ignore"):
        return np.stack([(n + 1) * (mix[0] | 1), (n + 7) * (mix[1] | 1)], axis=1)


def decide(
    ledger: Ledger, units: list[int], slots: list[int], cap: int | None = None, epoch: int = EPOCH
) -> list[int]:
    """One batch, decided and applied; the codes of its events."""
    distinct, codes = np.unique(units, return_inverse=True)
    verdict, part = ledger.decide(epoch, tags(distinct.tolist()), codes, np.array(slots), cap, 1)
    header = None if ledger.header(epoch) else HEADER
    changes = ledger.changes([EpochChanges(part.epoch, part.tags, part.rows, part.states, header)])
    ledger.apply(changes)
    return [int(code) for code in verdict.codes]


class Forgetful(Ledger):
    """Loses its changes."""

    def apply(self, changes: LedgerChanges) -> None:
        pass


class Amnesiac(Ledger):
    """Keeps hi and forgets the mask."""

    def apply(self, changes: LedgerChanges) -> None:
        def blank(part: EpochChanges) -> EpochChanges:
            states = States(part.states.hi, np.zeros_like(part.states.mask), part.states.used)
            return EpochChanges(part.epoch, part.tags, part.rows, states, part.header)

        super().apply(LedgerChanges(changes.version, tuple(map(blank, changes.epochs))))


class Generous(Ledger):
    """Does not count."""

    def apply(self, changes: LedgerChanges) -> None:
        for part in changes.epochs:
            part.states.used[:] = 0
        super().apply(changes)


def check_release_once(make: Callable[[], Ledger]) -> None:
    """What every ledger must do."""
    ledger = make()
    assert decide(ledger, [1, 1, 2], [5, 5, 5]) == [ADMITTED, SLOT_USED, ADMITTED]
    assert decide(ledger, [1, 2, 1], [5, 5, 6]) == [SLOT_USED, SLOT_USED, ADMITTED]
    assert decide(ledger, [1, 1], [4, 4]) == [ADMITTED, SLOT_USED]
    assert decide(ledger, [1, 1, 1], [100, 37, 36]) == [ADMITTED, ADMITTED, SLOT_OLD]
    assert decide(ledger, [1], [37]) == [SLOT_USED]
    assert decide(ledger, [1], [5], epoch=EPOCH + 1) == [ADMITTED]
    assert decide(ledger, [3, 3], [0, 1], cap=2) == [ADMITTED, ADMITTED]
    assert decide(ledger, [3, 3], [2, 0], cap=2) == [SPENT, SPENT]
    assert decide(ledger, [4, 4, 4, 5], [1, 1, 2, 1], cap=1) == [ADMITTED, SPENT, SPENT, ADMITTED]


def test_release_once() -> None:
    check_release_once(Ledger)


@pytest.mark.parametrize("broken", [Forgetful, Amnesiac, Generous])
def test_a_broken_ledger_is_caught(broken: type[Ledger]) -> None:
    with pytest.raises(AssertionError):
        check_release_once(broken)


def test_two_to_the_forty_calls_and_no_more() -> None:
    ledger = Ledger()
    decide(ledger, [1], [0])
    ledger._rows[EPOCH].spent = MAX_CALLS - 2
    assert decide(ledger, [1, 1, 2, 3, 2], [0, 1, 0, 0, 0]) == [
        SLOT_USED,
        ADMITTED,
        ADMITTED,
        EXHAUSTED,
        EXHAUSTED,
    ]
    assert decide(ledger, [9], [9]) == [EXHAUSTED]


def test_changes_of_another_state_are_refused() -> None:
    ledger = Ledger()
    stale = ledger.changes([])
    decide(ledger, [1], [1])
    with pytest.raises(TornError):
        ledger.apply(stale)
    with pytest.raises(TornError):
        ledger.records(stale)


def test_index_finds_what_was_put_and_nothing_else() -> None:
    rows = EpochRows()
    rng = np.random.default_rng(3)
    known: dict[bytes, int] = {}
    for size in (1, 3, 300, 5000):
        some = rng.integers(0, 2**63, (size, 2), dtype=np.uint64)
        some[:, 1] &= np.uint64(0xFF)  # collide in the index on purpose
        found = rows.find(some)
        assert (found == -1).all()
        rows.put(some, found, States(np.arange(size), np.ones(size, np.uint64), np.ones(size, np.int64)))
        known |= {tag.tobytes(): int(hi) for tag, hi in zip(some, np.arange(size), strict=True)}
    everything = np.frombuffer(b"".join(known), np.uint64).reshape(-1, 2)
    assert rows.states(rows.find(everything)).hi.tolist() == list(known.values())
    assert (rows.find(rng.integers(0, 2**63, (1000, 2), dtype=np.uint64)) == -1).all()
    assert rows.size == rows.spent == len(known)


def test_a_unit_takes_at_most_a_hundred_bytes() -> None:
    rng = np.random.default_rng(4)
    rows = EpochRows()
    for _ in range(40):
        some = rng.integers(0, 2**63, (5_000, 2), dtype=np.uint64)
        n = len(some)
        rows.put(
            some, rows.find(some), States(np.zeros(n, np.int64), np.ones(n, np.uint64), np.ones(n, np.int64))
        )
        assert rows.nbytes <= 100 * rows.size


def state(ledger: Ledger) -> tuple[object, ...]:
    """Everything a ledger knows, independent of the order of its rows."""
    rows = {epoch: rows.packed().tobytes() for epoch, rows in ledger._rows.items()}
    spent = {epoch: rows.spent for epoch, rows in ledger._rows.items()}
    return rows, spent, dict(ledger._headers), ledger._journal


def test_restore_is_exact_at_every_step_whatever_compaction_removed() -> None:
    """A compacted log keeps the last record of each key; tombstones may be gone too."""
    rng = np.random.default_rng(8)
    ledger, log = Ledger(), []
    for step in range(400):
        size = int(rng.integers(1, 60))
        epoch = EPOCH + step // 150
        units, slots = rng.integers(0, 700, size), rng.integers(0, 90, size) + step // 3
        distinct, codes = np.unique(units, return_inverse=True)
        verdict, part = ledger.decide(epoch, tags(distinct.tolist()), codes, slots, 9, 1)
        header = None if ledger.header(epoch) else Header(rng.bytes(16), 3, rng.bytes(32))
        changes = ledger.changes([EpochChanges(part.epoch, part.tags, part.rows, part.states, header)])
        before = state(ledger)
        written = ledger.records(changes)
        assert state(ledger) == before
        log += written
        ledger.apply(changes)
        if step % 23 == 0 or step == 399:
            expected = state(ledger)
            assert state(Ledger.restore(value for _, value in log)) == expected
            compacted = compact(log)
            assert state(Ledger.restore(value for _, value in compacted)) == expected
            assert state(Ledger.restore(v for _, v in compact(log, upto=len(log) // 2))) == expected
            assert state(Ledger.restore(value for _, value in ledger.snapshot())) == expected
    live = {key for key, value in compact(log) if value is not None}
    assert sum(key[:1] == b"D" for key in live) < 300  # deltas go when pages cover them
    assert len(verdict.codes)


def compact(log: list[Record], upto: int | None = None) -> list[Record]:
    """What a broker may keep of a log whose first `upto` records were compacted."""
    cut = len(log) if upto is None else upto
    last = {key: position for position, (key, _) in enumerate(log)}
    return [
        record
        for position, record in enumerate(log)
        if position >= cut or (last[record[0]] == position and record[1] is not None)
    ]


def test_pages_cost_at_most_a_quarter_of_the_deltas() -> None:
    ledger, deltas, pages = Ledger(), 0, 0
    rng = np.random.default_rng(2)
    for step in range(60):
        units = rng.integers(0, 20_000, 3_000).tolist()
        distinct, codes = np.unique(units, return_inverse=True)
        _, part = ledger.decide(EPOCH, tags(distinct.tolist()), codes, np.full(3_000, step), None, 1)
        changes = ledger.changes([part])
        for key, value in ledger.records(changes):
            size = len(value or b"")
            assert size < 512 * 1024
            deltas, pages = (deltas + size, pages) if key[:1] == b"D" else (deltas, pages + size)
        ledger.apply(changes)
    assert 0 < pages < 0.3 * deltas


def test_large_batches_are_cut() -> None:
    ledger = Ledger()
    n = 40_000
    _, part = ledger.decide(EPOCH, tags(range(n)), np.arange(n), np.zeros(n, np.int64), None, 1)
    changes = ledger.changes([part])
    written = ledger.records(changes)
    assert [key[:1] for key, _ in written] == [b"D"] * 3
    assert all(len(value or b"") < 512 * 1024 for _, value in written)
    ledger.apply(changes)
    assert state(Ledger.restore(value for _, value in written)) == state(ledger)


def test_retire_forgets_and_leaves_tombstones() -> None:
    ledger = Ledger()
    log: list[Record] = []
    for epoch in (EPOCH, EPOCH + 1):
        _, part = ledger.decide(epoch, tags(range(50)), np.arange(50), np.zeros(50, np.int64), None, 1)
        changes = ledger.changes([EpochChanges(epoch, part.tags, part.rows, part.states, HEADER)])
        ledger.apply(changes)
    log += ledger.snapshot()
    log += ledger.retire(EPOCH + 1)
    assert ledger.epochs == [EPOCH + 1]
    assert ledger.units == 50
    keys = {key for key, value in compact(log) if value is not None}
    assert not any(i64(EPOCH) in key for key in keys)
    assert ledger.retire(EPOCH + 1) == []


def test_many_epochs_retire_in_pieces_the_oldest_first() -> None:
    ledger, many = Ledger(), 3_000
    for epoch in range(many):
        _, part = ledger.decide(epoch, tags([epoch]), np.zeros(1, np.int64), np.zeros(1, np.int64), None, 1)
        ledger.apply(ledger.changes([EpochChanges(epoch, part.tags, part.rows, part.states, HEADER)]))
    first = ledger.retire(many)
    assert 4_096 <= len(first) < 4_096 + 512
    assert ledger.epochs == list(range(len(first) // 2, many))
    assert len(first) + len(ledger.retire(many)) == 2 * many
    assert (ledger.epochs, ledger.units) == ([], 0)


def test_foreign_records_are_refused() -> None:
    for value in (b"", b"SL\x01", b"SL\x01X" + bytes(8), b"{}", changelog.MAGIC + b"P" + bytes(9)):
        with pytest.raises(TornError):
            Ledger.restore([value])


def test_other_keys_are_refused_at_start() -> None:
    keys = chain()
    ledger = Ledger()
    _, part = ledger.decide(EPOCH, tags([1]), np.zeros(1, np.int64), np.zeros(1, np.int64), None, 1)
    header = Header(keys.check_value(EPOCH), 1, bytes(32))
    ledger.apply(ledger.changes([EpochChanges(EPOCH, part.tags, part.rows, part.states, header)]))
    ledger.verify(keys)
    other = type(keys).of_root(keys.population, 86_400_000, 0, EPOCH, bytes(32))
    with pytest.raises(KeyStoreError, match="noise key") as problem:
        ledger.verify(other)
    assert "backup" in problem.value.remedy
    other.destroy_before(EPOCH + 1)
    ledger.verify(other)  # what is closed is denied and needs no key


def test_journal_covers_only_what_pages_hold() -> None:
    """Whatever the sizes: a delta is dropped only when a whole round of pages began after it."""
    rng = np.random.default_rng(6)
    journal, written, cursor = Journal(), {}, 0
    for step in range(5000):
        changed, total = int(rng.integers(1, 500)), int(rng.integers(0, 3000))
        after, buckets, covered = journal.advance(1, changed, total)
        assert buckets.start == cursor or not len(buckets)
        for bucket in buckets:
            written[bucket] = step
        for delta in covered:
            assert all(written[bucket] > delta for bucket in range(256))
        cursor = after.cursor
        journal = after
    assert journal.floor > 4000


def test_one_unit_is_as_fast_as_many() -> None:
    n = 12_096
    seconds = []
    for units in (np.zeros(n, np.int64), np.arange(n)):
        ledger = Ledger()
        distinct = np.unique(units)
        own = tags(distinct.tolist())
        began = time.process_time()
        for _ in range(20):
            verdict, _ = ledger.decide(EPOCH, own, units, np.arange(n), None, 1)
        seconds.append((time.process_time() - began) / 20)
        assert (verdict.codes == ADMITTED).all()
    assert max(seconds) < 0.1  # about 3 ms; a loop over events takes 0.3 s or more
