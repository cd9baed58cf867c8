"""The demo's bars, and then an app developer's ten minutes on the stack that it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Install
from tests.e2e.test_readme import play

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Home and JSON of one `sluice demo --keep`."""
    home, output = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("output")
    environment = {**os.environ, "SLUICE_HOME": str(home)}
    sluice = [sys.executable, "-m", "sluice.cli.main"]
    done = subprocess.run(
        [*sluice, "demo", "--keep", "--json", "--output", str(output)],
        env=environment, text=True, capture_output=True, timeout=500,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr
        yield home, json.loads(done.stdout.splitlines()[-1])
    finally:
        subprocess.run([*sluice, "down", "--purge"], env=environment, check=True, capture_output=True)


def test_every_event_is_accounted_for(kept: tuple[Path, dict[str, Any]]) -> None:
    traffic = kept[1]["traffic"]
    assert traffic["events_in"] == 12_096
    assert traffic["events_in"] == traffic["shared"] + traffic["denied"] + traffic["rejected"]
    assert traffic["lost"] == traffic["duplicated"] == 0
    assert traffic["epsilon_per_unit"] == 1.0


def test_forecasts_from_noised_counts_are_nearly_as_good_as_without(
    kept: tuple[Path, dict[str, Any]],
) -> None:
    traffic = kept[1]["traffic"]
    assert traffic["mae"] <= 6.48
    assert traffic["mae"] <= 1.015 * traffic["mae_without_noise"]
    assert traffic["mae"] <= 1.005 * min(traffic["mae_experts"].values())
    assert traffic["mae"] < traffic["mae_frozen"] < traffic["mae_persistence"]


def test_releases_are_made_applied_and_a_worse_one_is_refused(kept: tuple[Path, dict[str, Any]]) -> None:
    traffic = kept[1]["traffic"]
    assert traffic["releases"] >= 10
    assert traffic["applied"] == traffic["releases"]
    assert traffic["planted_worse"] in traffic["refused_by_gate"]


def test_it_is_quick_and_draws(kept: tuple[Path, dict[str, Any]]) -> None:
    result = kept[1]
    if result["warm_s"] is not None:
        assert result["warm_s"] <= 10
    assert (result["cold_s"] or 0) <= 60
    assert result["total_s"] <= 90
    assert Path(result["plot"]).stat().st_size > 20_000


def test_an_app_subscribes_from_a_bare_install(
    kept: tuple[Path, dict[str, Any]], install: Callable[..., Install], tmp_path: Path
) -> None:
    play("app", install, kept[0], tmp_path)
