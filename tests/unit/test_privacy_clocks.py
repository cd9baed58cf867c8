"""When an epoch's key may go: behind every partition of every contract, and never before its time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from schemas.contract import Contract
from schemas.errors import KeyStoreError
from streams.agents.closing import EVERY_MS, Closing
from streams.privacy import keystore
from streams.privacy.clocks import Clocks
from streams.privacy.keys import KeyChain
from tests.privacy_cases import DAY_MS, EPOCH, START_MS, contract

ONE = contract(top="partitions: 2")
KEEP = ONE.keep.raw_ms  # 2 days
NOW = START_MS + 1000 * DAY_MS  # years after the data
LATER = NOW + KEEP + 1


def opened(home: Path, of: Contract = ONE, now_ms: int = NOW) -> Clocks:
    return Clocks.open(home, of, now_ms)


def other(name: str = "test.runs", **more: str) -> Contract:
    return contract(name=name, **more)


def test_the_slowest_partition_decides(tmp_path: Path) -> None:
    clocks, another = opened(tmp_path), opened(tmp_path)
    assert clocks.report({0: START_MS + 9 * DAY_MS}, LATER) is None  # partition 1 has no clock yet
    assert another.report({1: START_MS + 5 * DAY_MS}, LATER) == EPOCH + 2
    assert clocks.report({0: START_MS + 9 * DAY_MS}, LATER) == EPOCH + 2
    assert another.report({1: START_MS + 5 * DAY_MS + 1}, LATER) == EPOCH + 3  # end + 2 days lies before it
    assert another.report({1: START_MS + 30 * DAY_MS}, LATER) == EPOCH + 6


def test_so_does_the_slowest_contract_of_the_population_each_with_its_own_keep(tmp_path: Path) -> None:
    clocks = opened(tmp_path)
    clocks.report({0: START_MS + 9 * DAY_MS, 1: START_MS + 9 * DAY_MS}, LATER)
    slow = opened(tmp_path, other(keep="{raw: 5d}"))
    assert clocks.report({}, LATER + 4 * DAY_MS) is None
    assert slow.report({0: START_MS + 9 * DAY_MS}, LATER + 4 * DAY_MS) == EPOCH + 3
    elsewhere = opened(tmp_path, other("test.elsewhere", more="population: others"))
    assert elsewhere.report({}, LATER) is None
    assert clocks.report({}, LATER + 4 * DAY_MS) == EPOCH + 3


def test_nothing_goes_before_raw_data_may_go(tmp_path: Path) -> None:
    """Old data of one contract does not close the epochs of the next one that is replayed."""
    clocks = opened(tmp_path)
    ends = {0: START_MS + 30 * DAY_MS, 1: START_MS + 30 * DAY_MS}
    assert clocks.report(ends, NOW) is None
    assert clocks.report(ends, NOW + KEEP) is None
    assert clocks.report(ends, NOW + KEEP + 1) == EPOCH + 27


def test_a_clock_far_ahead_ends_nothing_that_is_to_come(tmp_path: Path) -> None:
    clocks = opened(tmp_path)
    assert clocks.report({0: 2**62, 1: 2**62}, LATER) == ONE.privacy.epoch.oldest_open(LATER, KEEP)


def test_a_clock_that_goes_back_holds_back(tmp_path: Path) -> None:
    clocks = opened(tmp_path)
    clocks.report({0: START_MS + 9 * DAY_MS, 1: START_MS + 9 * DAY_MS}, LATER)
    assert clocks.report({0: START_MS}, LATER) == EPOCH - 3


def test_a_new_major_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    opened(tmp_path).report({0: START_MS}, LATER)
    second = opened(tmp_path, contract(version="2.0.0"))
    assert second.report({}, LATER) is None
    assert second.report({0: START_MS + 9 * DAY_MS}, LATER) == EPOCH + 6


def test_a_worker_that_starts_again_forgets_nothing(tmp_path: Path) -> None:
    opened(tmp_path).report({0: START_MS + 9 * DAY_MS, 1: START_MS + 9 * DAY_MS}, NOW)
    assert opened(tmp_path, now_ms=LATER).report({}, LATER) == EPOCH + 6


def test_what_others_can_read_or_nobody_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    file = keystore.beside(tmp_path, ONE.privacy.population, "clocks.json")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("[]")
    with pytest.raises(KeyStoreError, match="damaged"):
        opened(tmp_path)
    file.unlink()
    assert opened(tmp_path).report({0: START_MS, 1: START_MS}, NOW) is None  # begun anew


def test_a_full_disk_lets_keys_live_longer_and_sharing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyChain.open(tmp_path, ONE, NOW)
    began, now = keys.oldest, [LATER]
    closing = Closing(opened(tmp_path), keys, lambda: now[0])
    for partition in (0, 1):
        closing.committed(partition, START_MS + 9 * DAY_MS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        closing.look([0, 1])
    assert keys.oldest == began
    now[0] += EVERY_MS
    closing.look([0, 1])
    assert keys.oldest > began
