"""Units all at once are what they are one by one: who they are, and which partition they live in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from schemas.partition import normal, partition, unit_bytes
from streams.privacy.units import units

ROWS = 2_000
RNG = np.random.default_rng(1)
COLUMNS = {
    "site": pa.array([f"site-{n}" for n in RNG.integers(0, 20, ROWS)]),
    "card": pa.array([("", f"Cärd-{n}", " x" * n)[n % 3] for n in RNG.integers(0, 60, ROWS).tolist()]),
    "lane": pa.array(RNG.integers(-2, 3, ROWS)),
    "bus": pa.array(RNG.integers(0, 2, ROWS).astype(bool)),
}


@pytest.mark.parametrize("count", [1, 2, 8, 100])
@pytest.mark.parametrize(
    "fields", [("site",), ("card",), ("lane",), ("site", "card"), ("card", "lane", "bus", "site")]
)
@pytest.mark.parametrize("words", [(), ("nfc", "trim", "lower")])
def test_units_and_their_homes(fields: tuple[str, ...], count: int, words: tuple[str, ...]) -> None:
    found = units([COLUMNS[field] for field in fields], words)
    texts = {name: list(map(str, column.to_pylist())) for name, column in COLUMNS.items()}
    texts["bus"] = [text.lower() for text in texts["bus"]]
    for name in ("site", "card"):
        texts[name] = [normal(text, words) for text in texts[name]]
    wanted = list(zip(*(texts[field] for field in fields), strict=True))
    named = [(name,) if isinstance(name, str) else name for name in found.pick(found.codes)]
    assert named == wanted
    assert len(set(found.names)) == len(found.names)
    assert found.homes(count).tolist() == [partition(unit_bytes(unit), count) for unit in wanted]


def test_no_rows_have_no_units() -> None:
    found = units([COLUMNS["site"][:0], COLUMNS["card"][:0]], ())
    assert (list(found.names), found.homes(8).tolist()) == ([], [])
