"""The trainer's record: whatever was written last comes back, and only what changed is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.checkpoint import HEAD, SHARD_BYTES, Change, Recorder, RecordError

PART = st.one_of(
    st.binary(max_size=20),
    st.integers(0, 3 * SHARD_BYTES).map(lambda size: bytes(i % 251 for i in range(size))),
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), PART, max_size=3), min_size=1, max_size=4))
def test_the_last_record_comes_back(history: list[dict[str, bytes]]) -> None:
    topic: list[Change] = []
    recorder = Recorder()
    for parts in history:
        topic += recorder.changes(parts)
    compacted = dict(topic)
    assert Recorder().restore(topic) == history[-1]
    assert Recorder().restore(compacted.items()) == history[-1]
    again = Recorder()
    again.restore(topic)
    assert again.changes(history[-1]) == [(HEAD, compacted[HEAD])]


def test_only_changed_shards_are_written() -> None:
    recorder, content = Recorder(), bytearray(5 * SHARD_BYTES + 1)
    assert len(recorder.changes({"learner": bytes(content), "line": b"{}"})) == 8
    content[2 * SHARD_BYTES] = 1
    written = recorder.changes({"learner": bytes(content), "line": b"{}"})
    assert [key for key, _ in written] == [b"learner/000002", HEAD]
    written = recorder.changes({"learner": bytes(content[:SHARD_BYTES]), "line": b"{}"})
    assert [value for _, value in written[:-1]] == [None] * 5


def test_an_empty_topic_is_an_empty_record() -> None:
    assert Recorder().restore([]) == {}


def test_a_lost_shard_is_said() -> None:
    topic = Recorder().changes({"learner": bytes(2 * SHARD_BYTES)})
    with pytest.raises(RecordError, match="'learner' has 16384 of 32768"):
        Recorder().restore(topic[1:])
    swapped = [(topic[0][0], b"x" * SHARD_BYTES), *topic[1:]]
    with pytest.raises(RecordError, match="damaged"):
        Recorder().restore(swapped)


def test_another_format_is_said() -> None:
    with pytest.raises(RecordError, match="format 2"):
        Recorder().restore([(HEAD, b'{"format": 2, "parts": {}}')])


@pytest.mark.parametrize(
    "head",
    [b"", b"{", b"7", b"\xc7", b'"a"', b"[" * 100_000, b'{"format": 1}', b'{"format": 1, "parts": 3}',
     b'{"format": 1, "parts": {"a": 3}}', b'{"format": 1, "parts": {"a": [-1, ""]}}', b'{"format": 1e999, "parts": {}}',
     b'{"format": 1, "parts": {"a": [1.5, ""]}}', b'{"format": 1, "parts": {"\\ud800": [0, ""]}}',
     b'{"format": 1, "parts": {"a": [1000000000000000000000, ""]}}']
)  # fmt: skip
def test_a_damaged_head_is_said_and_costs_nothing(head: bytes) -> None:
    """The last one claims 10^21 bytes: to look for each of its shards took for ever."""
    with pytest.raises(RecordError, match="damaged"):
        Recorder().restore([(b"a/000000", b"x"), (HEAD, head)])
