"""Twenty seconds of coverage-guided fuzzing of each target, two at a time; `make fuzz` is the long one.

The seed is fixed, so that a red build means a change and not luck; new luck is what the long run is for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Outcome
from tests.fuzz.targets import TARGETS

SECONDS, SEED, AT_A_TIME = 20, 1, 2
# What a target must reach: half of what it reaches on an idle machine, so that a target that stopped working is seen.
EDGES = {"codec": 150, "contract": 400, "mapping": 200, "release": 150, "http": 500}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    if not campaign.usable():
        assert os.environ.get("SLUICE_REQUIRE_ALL") != "1", campaign.MISSING
        pytest.skip(campaign.MISSING)

    def one(name: str, folder: Path) -> Outcome:
        return campaign.run([name], SECONDS, SEED, 1, folder, lambda _: None)[0]

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        folder = tmp_path_factory.mktemp("fuzz")
        yield {name: pool.submit(one, name, folder) for name in TARGETS}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_twenty_seconds_find_nothing(name: str, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[name].result()
    told = "\n".join(path.read_text() for path in outcome.folder.glob("finding-*.txt"))
    assert outcome.findings == [], f"{outcome.report()}\n{told}\n" + "\n".join(outcome.log[-20:])
    assert outcome.executions > 50
    assert outcome.edges >= EDGES[name], outcome.report()
