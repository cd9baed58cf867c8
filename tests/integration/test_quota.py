"""A producer's byte rate is limited at the broker, as an administrator does who shares it among many: everything slows
down to it, nothing is lost, nobody ends, and the full rate is back when it is lifted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import RunningStack
from tests.integration.pressure_help import Trial, sluice, trial
from tests.integration.wire import Wire, one, text

ALTER_CLIENT_QUOTAS = 49


@contextmanager
def limited(stack: RunningStack, principal: str, bytes_a_second: float) -> Iterator[None]:
    """`producer_byte_rate` of a principal. librdkafka has no call for it, so it is asked for on the wire."""

    def alter(rate: float, remove: bool) -> None:
        entity = one(text("user") + text(principal))
        change = one(text("producer_byte_rate") + struct.pack(">d?", rate, remove))
        with Wire(stack.owner.broker.port) as wire:
            assert wire.sign_in("admin", stack.admin.password.get_secret_value()) == 0
            answer = wire.ask(ALTER_CLIENT_QUOTAS, 0, one(entity + change) + b"\0")
            assert [answer.i32(), answer.i32(), answer.i16()][1:] == [1, 0]

    alter(bytes_a_second, False)
    try:
        yield
    finally:
        alter(bytes_a_second, True)


def lag_of(running: Trial) -> int:
    """Messages that the share group is behind, as `sluice lag` says."""
    group = f"share.{running.contract.contract}"
    told = sluice(running.home, "lag", "--json", "--group", group).communicate(timeout=60)[0]
    return int(json.loads(told)["messages"])


def moves(running: Trial, seconds: float) -> bool:
    """Whether shared grows within the time, beyond what was under way."""
    running.endure(1.5)
    before = sum(running.last.values())
    return running.until(lambda: sum(running.last.values()) > before, seconds)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quota_slows_down_and_nothing_else(stack: RunningStack, tmp_path: Path) -> None:
    with trial(stack.home, stack.connection, tmp_path / "load") as running:
        with limited(stack, "producer", 60_000):  # of 300,000
            behind, began = running.behind, running.load.count
            # What may be sent at once is sent first; then it takes in what it may send.
            assert running.until(lambda: running.behind > behind + (running.load.count - began) / 2, 60)
            assert moves(running, 60)
            assert lag_of(running) < 5_000  # those behind it have little to do
        running.back()

        with limited(stack, "share", 60_000):  # of 600,000
            behind = running.behind
            assert running.until(lambda: running.behind > behind + 10_000, 60)
            assert any(lag_of(running) > 5_000 for _ in range(10))
        running.back()
        assert running.peak_mib < 400
        running.check()
