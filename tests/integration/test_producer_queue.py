"""Every record of an output reaches the topic once and in order, also where the client's queue is full in between."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.kafka.producer import Recyclable
from streams.kafka.records import Output
from streams.kafka.session import Tuning
from streams.kafka.watchdog import Watchdog
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read

COUNT = 2_500


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("headed", [False, True])
def test_a_full_queue_loses_nothing_and_doubles_nothing(
    stack: RunningStack, keyed: bool, headed: bool
) -> None:
    topic = f"queue-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(stack.admin.settings())
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    producer = Recyclable(stack.admin, topic, threading.Event(), Watchdog(), Tuning())
    producer._settings["queue.buffering.max.messages"] = 100
    producer.recycle()
    values = [b"%d" % number for number in range(COUNT)]
    keys: Any = [b"k%d" % (number % 7) for number in range(COUNT)] if keyed else None
    headers: Any = [[("n", value)] for value in values] if headed else None
    producer.begin()
    producer.produce(Output(topic, 0, values, keys, headers))
    producer.flush()
    producer.commit()
    producer.close()
    found = read(stack.admin, topic, 0)
    assert [message.value() for message in found] == values
    assert [message.key() for message in found] == (keys or [None for _ in values])
    assert [message.headers() for message in found] == (headers or [None for _ in values])
