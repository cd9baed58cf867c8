"""Decisions depend on the log's prefix only: any batch split, and any replay after a crash, gives the same bytes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.privacy.changelog import Record
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import share
from tests.privacy_cases import DAY_MS, MINUTE_MS, START_MS, chain, contract, part, raw

OF = contract(held="{max: 5, of: [at], held_by: ledger}")
PLAN = Plan.of(OF)
TEXT = st.sampled_from(["ann", "bob", "eve", "", "Zoé"])
EVENT = st.fixed_dictionaries(
    {
        "person": st.one_of(st.none(), TEXT, TEXT, TEXT),
        "at": st.one_of(
            st.none(),
            st.integers(-(2**63), 2**63 - 1),
            st.builds(
                lambda day, minute: START_MS + day * DAY_MS + minute * MINUTE_MS,
                st.integers(-4, 3),
                st.integers(0, 80),
            ),
        ),
        "steps": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 20)),
        "weight": st.one_of(st.none(), st.floats()),
        "mood": st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["good", "bad"])),
        "seen": st.one_of(st.none(), st.integers(-(2**40), 2**40)),
        "place": st.one_of(st.none(), st.text(max_size=2)),
    }
)
CLOCK = st.one_of(st.just(-1), st.integers(-3, 3).map(lambda day: START_MS + day * DAY_MS))
LOG = st.lists(st.tuples(EVENT, CLOCK), max_size=40)


class Run:
    """A share agent without Kafka: outputs, denials, notes and the changelog, batch by batch."""

    def __init__(self, ledger: Ledger) -> None:
        self.keys, self.ledger = chain(), ledger
        self.outputs: list[pa.RecordBatch] = []
        self.log: list[list[Record]] = []
        self.counts: dict[str, int] = {}
        self.rejected: list[str] = []

    def go(self, rows: list[dict[str, Any]], clocks: list[int], edges: list[int]) -> Run:
        batch = raw(OF, rows, clocks)
        for start, stop in pairwise(edges):
            result = share(part(batch, start, stop), PLAN, self.keys, self.ledger)
            total = len(result.shared_rows) + len(result.denied_rows) + len(result.rejected)
            assert total == stop - start
            self.log.append(self.ledger.records(result.changes))
            self.ledger.apply(result.changes)
            self.outputs.append(result.shared)
            self.rejected += [reason for _, reason in result.rejected]
            for name, count in (*result.denied.items(), *result.notes.items()):
                self.counts[name] = self.counts.get(name, 0) + count
        return self

    @property
    def shared(self) -> list[dict[str, Any]]:
        return [row for batch in self.outputs for row in batch.to_pylist()]


def rows_of(ledger: Ledger) -> dict[int, bytes]:
    return {epoch: rows.packed().tobytes() for epoch, rows in ledger._rows.items()}


def edges_of(cuts: list[int], size: int) -> list[int]:
    return sorted({0, size, *(cut for cut in cuts if cut < size)})


@settings(max_examples=150, deadline=None)
@given(LOG, st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(0, 40), max_size=8))
def test_any_split_gives_the_same(log: list[Any], some: list[int], others: list[int]) -> None:
    rows, clocks = [row for row, _ in log], [clock for _, clock in log]
    whole = Run(Ledger()).go(rows, clocks, edges_of(some, len(log)))
    pieces = Run(Ledger()).go(rows, clocks, edges_of(others, len(log)))
    assert whole.shared == pieces.shared
    assert whole.counts == pieces.counts
    assert whole.rejected == pieces.rejected
    assert rows_of(whole.ledger) == rows_of(pieces.ledger)
    assert whole.ledger._headers == pieces.ledger._headers


@settings(max_examples=100, deadline=None)
@given(LOG, st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(0, 40), max_size=6), st.data())
def test_replay_from_any_committed_prefix_gives_the_same_bytes(
    log: list[Any], some: list[int], others: list[int], data: st.DataObject
) -> None:
    """A worker dies anywhere; the next one restores the changelog and reads on, in batches of other sizes."""
    rows, clocks = [row for row, _ in log], [clock for _, clock in log]
    edges = edges_of(some, len(log))
    undisturbed = Run(Ledger()).go(rows, clocks, edges)
    died = data.draw(st.integers(0, len(edges) - 1))
    values = [value for batch in undisturbed.log[:died] for _, value in batch]
    ahead = edges_of([cut - edges[died] for cut in others if cut > edges[died]], len(log) - edges[died])
    replay = Run(Ledger.restore(values)).go(rows[edges[died] :], clocks[edges[died] :], ahead)
    before = [row for batch in undisturbed.outputs[:died] for row in batch.to_pylist()]
    assert before + replay.shared == undisturbed.shared
    assert rows_of(replay.ledger) == rows_of(undisturbed.ledger)


@settings(max_examples=60, deadline=None)
@given(LOG)
def test_a_second_pass_shares_nothing(log: list[Any]) -> None:
    """The same events again, against the ledger that has seen them: all denied or rejected."""
    rows, clocks = [row for row, _ in log], [clock for _, clock in log]
    run = Run(Ledger()).go(rows, clocks, [0, len(log)])
    again = Run(run.ledger).go(rows, clocks, [0, len(log)])
    assert again.shared == []
