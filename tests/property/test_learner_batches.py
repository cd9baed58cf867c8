"""Forecasts and state do not depend on how a stream is cut into batches, to the last bit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learner_streams import PUBLIC, Stream, same, small, states_differ
from trainers.learner import Learner

LENGTH = 420


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    keys=st.integers(1, 40),
    borders=st.lists(st.integers(1, LENGTH - 1), max_size=60),
)
def test_any_batch_split_gives_the_same_bits(seed: int, keys: int, borders: list[int]) -> None:
    stream = Stream(LENGTH, keys, seed)
    whole, cut = Learner(small(), PUBLIC, 3), Learner(small(), PUBLIC, 3)
    assert same(stream.feed(whole), stream.feed(cut, borders))
    assert states_differ(whole.state(), cut.state()) == []


def test_event_by_event_equals_one_batch() -> None:
    stream = Stream(LENGTH, keys=40, seed=77)
    whole, cut = Learner(small(), PUBLIC, 3), Learner(small(), PUBLIC, 3)
    assert same(stream.feed(whole), stream.feed(cut, list(range(LENGTH))))
    assert states_differ(whole.state(), cut.state()) == []
    assert whole.mlp.rounds >= 2
