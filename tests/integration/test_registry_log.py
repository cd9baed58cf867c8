"""A reader of the log to which nothing comes any more must not stand still for ever (streams/kafka/flow.py)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from confluent_kafka import Consumer

from sluice.stack import registry_log
from sluice.stack.registry_log import Batch, Log
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import unique


def test_what_was_appended_comes_through_a_new_consumer(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranded, built = threading.Event(), list[Any]()

    class Stranded(Consumer):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__(settings)
            stranded.clear()
            built.append(self)

        def poll(self, timeout: float = -1) -> Any:
            message = super().poll(timeout)
            return None if stranded.is_set() else message

    monkeypatch.setattr(registry_log, "Consumer", Stranded)
    monkeypatch.setattr(registry_log, "TOPIC", unique("schemas"))
    monkeypatch.setattr(registry_log, "STRANDED_SECONDS", 1.0)
    log, came = Log(stack.admin), list[int]()

    def take(batch: Batch) -> None:
        came.extend(offset for _, _, offset in batch)

    log.open(20)
    reading = threading.Thread(target=log.follow, args=(take,))
    reading.start()
    try:
        for _ in range(2):
            offset = log.append(((b"a", b"1"), (b"b", b"2")))
            end = time.monotonic() + 10
            while offset not in came:
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(2.0)  # nothing to read is no reason
            stranded.set()
    finally:
        log.close()
        reading.join()
    assert came == [0, 1, 2, 3]
    assert len(built) == 2
