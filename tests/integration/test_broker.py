"""The broker starts secured: the rightful come in, the others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from sluice.stack import security
from sluice.stack.home import Home
from tests.integration.conftest import RunningStack


def test_every_principal_can_sign_in(stack: RunningStack) -> None:
    for role in security.ROLES:
        client = AdminClient(stack.connection(role).settings())
        assert client.list_topics(timeout=10).brokers


def test_a_wrong_password_is_refused(stack: RunningStack) -> None:
    wrong = replace(stack.admin, password=SecretStr("wrong"))
    with pytest.raises(KafkaException):
        AdminClient({**wrong.settings(), "log_level": 0}).list_topics(timeout=3)


def test_secrets_are_closed_and_no_log_holds_one(stack: RunningStack) -> None:
    home = Home(stack.home)
    assert security.check_private(home) == []
    for role in security.ROLES:
        secret = security.password(home, role).get_secret_value().encode()
        for log in home.logs.rglob("*"):
            assert secret not in log.read_bytes(), log
