"""Whether an engine brought out what it had to: every event once, with its site, its minute, and a noisy amount.

Each output is compared with what was written: frame and schema id, the pairs of site and minute as often as they went
in, the key equal to the site. The intensity must be one of the 1,001 that the contract allows; that its noise has the
right law is for tests/unit/test_bench_peers.py (peers) and the privacy tests (ours) to say.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bench.peers.hop import GRID_MS, HEADER, MOST, SCALE, zigzag

DOUBLE = 8


def heads(shared_id: int, written: Sequence[pa.RecordBatch]) -> dict[bytes, int]:
    """What stands before the intensity, and how often. `written` has columns `site` and `at` (ms)."""
    frame = struct.pack(">bI", 0, shared_id)
    table = pa.Table.from_batches(written)
    table = table.set_column(1, "at", table.column("at").cast(pa.int64()))
    found: dict[bytes, int] = {}
    for row in table.group_by(["site", "at"]).aggregate([([], "count_all")]).to_pylist():
        site, time = row["site"].encode(), row["at"]
        head = frame + zigzag(len(site)) + site + zigzag(time - time % GRID_MS)
        found[head] = found.get(head, 0) + row["count_all"]
    return found


def problem(
    shared_id: int, written: Sequence[pa.RecordBatch], records: Sequence[tuple[bytes | None, bytes]]
) -> str | None:
    """What is wrong with the outputs, keys and values; None where nothing is. All sites are of one length."""
    wanted = heads(shared_id, written)
    length = len(next(iter(wanted))) + DOUBLE
    if others := sum(len(value) != length for _, value in records):
        return f"{others} values are not {length} bytes long"
    rows = np.frombuffer(b"".join(value for _, value in records), np.uint8).reshape(-1, length)
    first = np.ascontiguousarray(rows[:, :-DOUBLE])
    kind = pa.binary(length - DOUBLE)
    column = pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(first.data)])
    counts = column.value_counts()
    got = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    if got != wanted:
        pairs = sum(got.get(head) != count for head, count in wanted.items())
        return (
            f"{pairs} pairs of site and minute came out in another number, {len(got.keys() - wanted)} are new"
        )
    size = first[0, HEADER] >> 1
    sites = rows[:, HEADER + 1 : HEADER + 1 + size].tobytes()
    if b"".join(key or b"" for key, _ in records) != sites:
        return "a key is not the site"
    intensities = np.ascontiguousarray(rows[:, -DOUBLE:]).view("<f8")
    steps = np.rint(intensities / SCALE)
    if (np.abs(intensities - steps * SCALE) > 1e-9).any() or (steps < 0).any() or (steps > MOST).any():
        return "an intensity is none of those that the contract allows"
    return None
