"""SIGKILL in the middle of publishing, again and again: the log is the one of a run that nobody disturbed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from producers.publish import publish
from tests.integration.conftest import RunningStack
from tests.integration.publish_help import Made, decoded, log, make, progress, write_rows

ROWS = 30_000
ROOT = Path(__file__).parents[2]


def child(stack: RunningStack, made: Made, where: str, after: int) -> subprocess.Popen[bytes]:
    words = [str(stack.home), str(made.path), where, str(after)]
    return subprocess.Popen([sys.executable, "-m", "tests.integration.publish_child", *words], cwd=ROOT)


@pytest.mark.slow
def test_killed_in_the_middle_again_and_again(stack: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "calm").mkdir()
    killed = make(tmp_path / "killed", stack.admin, partitions=2)
    calm = make(tmp_path / "calm", stack.admin, partitions=2)
    broken = write_rows(killed.source, ROWS, bad_every=500)
    assert write_rows(calm.source, ROWS, bad_every=500) == broken

    rng = random.Random(8)
    deaths: list[str] = []
    for where in [*(["open"] * 5), *(["commit"] * 2), *(["random"] * 3)]:
        process = child(stack, killed, where if where != "random" else "never", rng.randint(1, 4))
        if where == "random":
            before = progress(stack.admin, killed)
            while process.poll() is None and progress(stack.admin, killed) == before:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.1)
            process.kill()
        if process.wait(60) == -9:
            deaths.append(where)
    assert deaths.count("open") == 5
    assert deaths.count("commit") == 2
    assert child(stack, killed, "never", 0).wait(120) == 0

    report = publish(calm.contract, stack.connection("producer"))
    assert (report.tally.published, report.tally.rejected) == (ROWS - len(broken), len(broken))
    raw = log(stack.admin, killed, killed.contract.topics.raw)
    assert raw == log(stack.admin, calm, calm.contract.topics.raw)
    letters = log(stack.admin, killed, killed.contract.topics.dlq)
    assert letters == log(stack.admin, calm, calm.contract.topics.dlq)
    assert {entry.body for entry in letters[0]} == set(broken.values())
    numbers = sorted(decoded(entry, killed)["n"] for entries in raw for entry in entries if not entry.clock)
    assert numbers == [index for index in range(ROWS) if index + 2 not in broken]
    assert progress(stack.admin, killed) == progress(stack.admin, calm)
    # The kills left aborted records behind, which only readers of uncommitted data see.
    everything = log(stack.admin, killed, killed.contract.topics.raw, committed=False)
    assert sum(map(len, everything)) >= sum(map(len, raw)) + 5 * 500
    assert publish(killed.contract, stack.connection("producer")).tally.published == 0
