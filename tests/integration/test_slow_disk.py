"""A disk that stalls: nothing is lost, no transaction is torn, nobody needs a hand.

Modelled without kernel modules: every append waits for the device (`flush.messages=1`: an fsync for each batch), and
the whole broker stands still for moments (SIGSTOP), as all of its threads soon do behind a write that does not return;
longer than its own session once, so that its controller fences it. Not modelled: a stall of one partition alone, nor a
kernel that answers reads from memory while writes hang.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.integration.conftest import RunningStack
from tests.integration.pressure_help import trial

STALLS = (0.2, 0.8, 0.3, 4.0)  # seconds
BETWEEN_SECONDS = 0.4


def flush_every_append(stack: RunningStack, *topics: str) -> None:
    entry = ConfigEntry("flush.messages", "1", incremental_operation=AlterConfigOpType.SET)
    wanted = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry]) for topic in topics]
    admin = AdminClient(stack.admin.settings())  # kept: its futures end with it
    for done in admin.incremental_alter_configs(wanted).values():
        done.result(20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_stalls_tears_nothing(stack: RunningStack, tmp_path: Path) -> None:
    assert stack.owner.broker.process is not None
    broker = stack.owner.broker.process.pid
    with trial(stack.home, stack.connection, tmp_path / "load") as running:
        topics = running.contract.topics
        flush_every_append(stack, topics.raw, topics.shared, topics.ledger, topics.source)
        for seconds in STALLS:
            os.kill(broker, signal.SIGSTOP)
            try:
                running.endure(seconds)
            finally:
                os.kill(broker, signal.SIGCONT)
            running.endure(BETWEEN_SECONDS)
        running.back()
        assert running.peak_mib < 400
        running.check()
