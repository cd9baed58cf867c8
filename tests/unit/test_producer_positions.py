"""Asking where a source stands just after its topics were made: a leader that is not there yet is no missing broker."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from pydantic import SecretStr

from producers.positions import Positions
from streams.kafka.clients import Connection


class Prober:
    """Fails with these codes, one after the other, then answers."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def get_watermark_offsets(self, partition: Any, **options: Any) -> tuple[int, int]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return 3, 9


POSITIONS = Positions(Connection("127.0.0.1:9", "producer", SecretStr("x")), "c.source.v1")


def test_a_leader_is_waited_for() -> None:
    prober = Prober(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert POSITIONS._ends(prober) == (3, 9)


def test_nothing_else_is() -> None:
    with pytest.raises(KafkaException):
        POSITIONS._ends(Prober(KafkaError.TOPIC_AUTHORIZATION_FAILED))
