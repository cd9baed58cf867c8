"""How large a publisher's transaction may become: by rows, by bytes, and by what the broker takes in its time."""

from __future__ import annotations

from producers.batch import MOST_ROWS, Batch
from producers.sources import Row
from schemas.contract import Topics


def filled(batch: Batch) -> int:
    """So many rows go into the next transaction."""
    batch.clear()
    count = 0
    while not batch.full:
        batch.event(Row(count, count, count + 1, None, b""), 0, b"key", b"value")
        count += 1
    return count


def test_a_transaction_that_times_out_is_tried_smaller_and_grows_again() -> None:
    batch = Batch(Topics(raw="raw", shared="shared", dlq="dlq", ledger="ledger", source="source"), 1)
    assert filled(batch) == MOST_ROWS
    batch.fit.took(batch.rows, 0.1, False)  # a broker that went away is no reason
    assert filled(batch) == MOST_ROWS
    batch.fit.took(batch.rows, 1.1, False)
    assert filled(batch) == MOST_ROWS // 4
    batch.fit.took(batch.rows, 1.1, False)
    assert filled(batch) == MOST_ROWS // 16
    batch.fit.took(batch.rows, 0.5, True)  # just so
    assert filled(batch) == MOST_ROWS // 16
    sizes = []
    for _ in range(6):
        batch.fit.took(batch.rows, 0.1, True)
        sizes.append(filled(batch))
    assert sizes == [500, 1000, 2000, MOST_ROWS, MOST_ROWS, MOST_ROWS]
    for _ in range(9):
        batch.fit.took(batch.rows, 1.1, False)
        filled(batch)
    assert filled(batch) == 1
