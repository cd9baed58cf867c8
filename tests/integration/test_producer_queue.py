"""Every record of an output reaches the topic once and in order, also where the client's queue is full in between:
one by one, and in librdkafka's batches, straight from columns.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from streams.kafka import bulk
from streams.kafka.producer import Recyclable
from streams.kafka.records import Output, Packed
from streams.kafka.session import Tuning
from streams.kafka.watchdog import Watchdog
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read

COUNT = 2_500


@pytest.fixture
def topic(stack: RunningStack) -> str:
    name = f"queue-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(stack.admin.settings())
    admin.create_topics([NewTopic(name, 2)])[name].result(30)
    return name


@pytest.fixture
def producer(stack: RunningStack, topic: str) -> Iterator[Recyclable]:
    """With room for 100 records."""
    found = Recyclable(stack.admin, topic, threading.Event(), Watchdog(), Tuning())
    found._settings["queue.buffering.max.messages"] = 100
    found.recycle()
    yield found
    found.close()


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("way", ["one by one", "headed", "packed"])
def test_a_full_queue_loses_nothing_and_doubles_nothing(
    stack: RunningStack, producer: Recyclable, topic: str, keyed: bool, way: str
) -> None:
    values = [b"%d" % number for number in range(COUNT)]
    keys: Any = [b"k%d" % (number % 7) for number in range(COUNT)] if keyed else None
    headers: Any = [[("n", value)] for value in values] if way == "headed" else None
    output = Output(topic, 1, values, keys, headers)
    if way == "packed":
        output = Output(topic, 1, packed(values), packed(keys) if keys else None)
    producer.begin()
    producer.produce(output)
    producer.flush()
    producer.commit()
    found = read(stack.admin, topic, 1)
    assert [message.value() for message in found] == values
    assert [message.key() for message in found] == (keys or [None] * COUNT)
    assert [message.headers() for message in found] == (headers or [None] * COUNT)


def test_packed_records_take_the_batch_call(
    producer: Recyclable, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above compares one way with itself."""
    calls: list[int] = []

    def produce(handle: int, topic: str, partition: int, values: Packed, keys: Any, first: int) -> int:
        calls.append(len(values))
        return len(values)

    monkeypatch.setattr(bulk, "produce", produce)
    producer.begin()
    producer.produce(Output(topic, 0, packed([b"x"])))
    assert calls == [1]


def test_with_another_release_of_the_client_they_go_one_by_one(
    stack: RunningStack, producer: Recyclable, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "KNOWN", "0.0.0")
    producer.recycle()
    producer.begin()
    producer.produce(Output(topic, 0, packed([b"x", b"y"]), packed([b"k", b"k"])))
    producer.flush()
    producer.commit()
    assert [message.value() for message in read(stack.admin, topic, 0)] == [b"x", b"y"]


def test_a_record_that_is_too_large_spoils_the_transaction(producer: Recyclable, topic: str) -> None:
    producer.begin()
    with pytest.raises(KafkaException) as caught:
        producer.produce(Output(topic, 0, packed([b"x", b"y" * (5 << 20), b"z"])))
    assert caught.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_packed_strings_are_a_sequence() -> None:
    words = [b"", b"a", b"bc", b"", b"def"]
    for array, expected in (
        (pa.array(words, pa.binary()), words),
        (pa.array(words, pa.binary())[1:4], words[1:4]),
    ):
        found = Packed.of(array)
        assert list(found) == expected
        assert found[1:] == expected[1:]
        assert found[-1] == expected[-1]
        assert found.lengths.tolist() == [len(word) for word in expected]
    assert list(Packed.of(pa.array([], pa.binary()))) == []
    with pytest.raises(ValueError, match="null"):
        Packed.of(pa.array([b"a", None], pa.binary()))


def packed(words: list[bytes]) -> Packed:
    return Packed.of(pa.array(words, pa.binary()))
