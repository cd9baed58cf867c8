"""A few seconds of chaos: workers and a trainer killed, one taken over, a zombie, a cut network. `make chaos` is the
long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plans import Fault
from tests.chaos.run import CLEAN, Options, run
from tests.chaos.scene import Ground
from tests.integration.conftest import RunningStack

SCRIPT = (
    Fault("kill", "restart", 0, 0.5, 0),
    Fault("trainer", "", 0, 0.3, 0),
    Fault("network", "cut", 1, 0.3, 0),
    Fault("kill", "takeover", 1, 0.5, 0),
    Fault("zombie", "", 0, 0.5, 0.5),
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_a_zombie_and_a_cut_lose_and_double_nothing(stack: RunningStack, tmp_path: Path) -> None:
    options = Options(seed=7, seconds=150, rate=2500, script=SCRIPT)  # the script ends before that
    said: list[str] = []
    report = run(options, Ground(stack.home, stack.connection), tmp_path, said.append)
    assert {name: report[name] for name in CLEAN} == dict.fromkeys(CLEAN, 0), (report, said)
    assert report["drained"], said
    assert report["not_recovered"] == []
    assert report["faults"] == {
        "kill:restart": 1,
        "kill:takeover": 1,
        "network:cut": 1,
        "trainer": 1,
        "zombie": 1,
    }
    assert report["exits"]["share0"]["-9"] == report["exits"]["share1"]["-9"] == 1
    assert report["exits"]["train"]["-9"] == 1
    assert report["releases"] >= 2, report
    assert report["learned"] == report["shared"]
    assert report["shared"] > 10_000
    assert report["dead_letters"] > 50
