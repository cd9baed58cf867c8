"""When the stack answers: asked as a real client would, signed in."""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from streams.kafka.clients import Connection


def broker_answers(connection: Connection, timeout_seconds: float = 2) -> bool:
    """Whether the broker takes the password and answers a metadata request within the time."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({**connection.settings(), "log_level": 0})  # a refused connection is no news here
    try:
        return bool(client.list_topics(timeout=timeout_seconds).brokers)
    except KafkaException:
        return False


def registry_answers(connection: Connection, timeout_seconds: float = 2) -> bool:
    """Whether the registry takes the password and lists its subjects within the time."""
    secret = connection.password.get_secret_value()
    token = base64.b64encode(f"{connection.principal}:{secret}".encode()).decode()
    request = urllib.request.Request(
        f"{connection.registry_url}/subjects", headers={"Authorization": f"Basic {token}"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=timeout_seconds) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refused:  # 503 while it reads its log
        refused.close()
        return False
    except OSError:
        return False


def wait_for(answers: Callable[[], bool], alive: Callable[[], bool], timeout_seconds: float) -> bool:
    """Ask until it answers; False when the time is over or the process is gone."""
    end = time.monotonic() + timeout_seconds
    while not answers():
        if not alive() or time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
