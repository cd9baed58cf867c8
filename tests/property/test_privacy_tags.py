"""A unit has one number and one tag, whichever way it is looked up; two units never share one."""

from __future__ import annotations

import hmac

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.partition import partition
from streams.privacy.index import TagIndex
from streams.privacy.tags import Names, shorts
from streams.privacy.units import partitions

KEY = bytes(range(32))
# NULs, lengths around the limit of 15 bytes, texts that are beginnings of each other, more than one byte a letter
texts = st.text(st.sampled_from("\0ab0ä€😀 "), max_size=9) | st.text(max_size=17)
batches = st.lists(st.lists(texts, unique=True, max_size=40), max_size=6)


def tag(key: bytes, unit: str) -> bytes:
    """As docs/privacy.md spells it, by the library's own HMAC."""
    text = unit.encode()
    return hmac.digest(key, len(text).to_bytes(4, "big") + text, "sha256")[:16]


@given(batches)
@example([["", "\0", "\0\0", "a" * 15], ["a" * 15, "a" * 16, "ä" * 8], ["a" * 14, "a" * 14 + "\0"]])
def test_short_texts_are_found_as_a_dict_finds_them(lots: list[list[str]]) -> None:
    names, oracle = Names(limit=60), Names(limit=60)
    for lot in lots:
        found = names.ids(lot, shorts(pa.array(lot, pa.string())))
        assert found.tolist() == oracle.ids(lot).tolist()
        assert names.tags(KEY, found).tobytes() == b"".join(tag(KEY, text) for text in lot)


@given(st.lists(texts, unique=True, max_size=60))
def test_the_words_of_short_texts_are_one_to_one(lot: list[str]) -> None:
    short = [text for text in lot if len(text.encode()) <= 15]
    words = shorts(pa.array(short, pa.string()))
    if short:
        assert words is not None
        assert len({row.tobytes() for row in words}) == len(short)
    sliced = shorts(pa.array(["x", *short, "y"], pa.string()).slice(1, len(short)))
    assert short == [] or (sliced is not None and words is not None and (sliced == words).all())


def test_longer_texts_and_nulls_have_none() -> None:
    assert shorts(pa.array(["a", "b" * 16])) is None
    assert shorts(pa.array(["a", None])) is None
    assert shorts(pa.array([], pa.string())) is None


@given(st.lists(st.integers(0, 2**128 - 1), unique=True, max_size=200), st.integers(1, 50))
def test_the_index_numbers_tags_in_the_order_they_came(tags: list[int], size: int) -> None:
    index = TagIndex()
    words = np.frombuffer(b"".join(each.to_bytes(16, "big") for each in tags), np.uint64).reshape(-1, 2)
    for start in range(0, len(words), size):
        assert (index.find(words[start:]) == -1).all()
        index.append(words[start : start + size])
    assert index.find(words).tolist() == list(range(len(words)))


@given(st.lists(texts, max_size=60), st.integers(1, 50))
@example(["", "abc", "abcd", "abcde", "a" * 63, "ä" * 31], 8)
@example(["a" * 64], 8)
def test_partitions_of_many_texts_are_the_partitions_of_each(lot: list[str], count: int) -> None:
    expected = [partition(text.encode(), count) for text in lot]
    assert partitions(pa.array(lot, pa.string()), count).tolist() == expected
    sliced = pa.array(["x", *lot, "y"], pa.string()).slice(1, len(lot))
    assert partitions(sliced, count).tolist() == expected
