"""A broker that comes back lists no group until it has read them: `lag` must not take that for an answer."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from pydantic import SecretStr

from schemas.errors import RetriableError
from sluice.ops import lag
from streams.kafka.clients import Connection


class Future:
    def __init__(self, valid: list[Any]) -> None:
        self.valid, self.errors = valid, list[Any]()

    def result(self) -> Future:
        return self


class Admin:
    """Answers at once, and lists no group."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tell, self.asked = settings["error_cb"], 0

    def list_consumer_groups(self, request_timeout: float) -> Future:
        self.asked += 1
        return Future([])

    def poll(self, timeout: float) -> int:
        return 0


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> lag.Lag:
    monkeypatch.setattr(lag, "AdminClient", Admin)
    monkeypatch.setattr(lag, "AGAIN_SECONDS", 0.01)
    return lag.Lag(Connection("127.0.0.1:1", "ops", SecretStr("-")), timeout_seconds=0.05)


def test_a_calm_broker_that_lists_no_group_has_none(reader: lag.Lag) -> None:
    assert reader.look(1) == []
    assert reader._admin.asked == 1  # type: ignore[attr-defined]


def test_after_a_failed_connection_an_empty_list_is_no_answer(reader: lag.Lag) -> None:
    reader._admin.tell(KafkaError(KafkaError._TRANSPORT))  # type: ignore[attr-defined]
    with pytest.raises(RetriableError, match="lists no group yet"):
        reader.look(1)
    assert reader._admin.asked > 1  # type: ignore[attr-defined]
    assert reader.look(2) == []  # it has answered for as long as the patience lasts: there is none
