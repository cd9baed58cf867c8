"""What an idle stack holds in memory, all roles but the trainer, as `sluice status --json` says it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

import producers
from tests.integration.test_broker_cli import FREE_PORTS, SLUICE, Machine, eventually

LARGEST_BYTES = 700_000_000
CONTRACT, TASK = "traffic.detector-counts", "traffic"
EVENTS = 12_096


class Roles(Machine):
    def role(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.out(arguments[0]).open("wb") as out:
            process = subprocess.Popen(
                [*SLUICE, *arguments], env=self.environment(), stdout=out, stderr=subprocess.STDOUT
            )
        self.started.append(process)
        return process

    def out(self, role: str) -> Path:
        return self.home.parent / f"{role}.out"

    def said(self, role: str) -> str:
        return self.out(role).read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Roles]:
    machine = Roles(tmp_path / "home")
    yield machine
    for process in machine.started:
        process.terminate()
    for process in machine.started:
        process.wait(30)
    machine.run("down")


@pytest.mark.timeout(280)
def test_idle_stack(machine: Roles) -> None:
    """After real work: the sample published and shared, a model trained, released and applied."""
    sample = Path(producers.__file__).parent / "samples" / "pems.parquet"
    file = machine.home.parent / "counts.csv"
    pyarrow.csv.write_csv(pyarrow.parquet.read_table(sample).slice(0, 100), file)
    assert machine.run("up", "--detach", *FREE_PORTS).returncode == 0
    assert machine.run("publish", CONTRACT).returncode == 0
    machine.role("share", CONTRACT, "--json")
    assert eventually(lambda: f'"shared": {EVENTS}' in machine.said("share"), 60), machine.said("share")
    train = machine.run("train", TASK, "--until-caught-up")
    assert "0 released" not in train.stderr, train.stderr
    machine.role("subscribe", TASK, "--json")
    machine.role("publish", CONTRACT, "--source", str(file), "--follow")
    assert eventually(lambda: '"value"' in machine.said("subscribe"), 60), machine.said("subscribe")
    time.sleep(3)
    found = machine.status()
    sizes = {run["role"]: run["rss_bytes"] for run in found["processes"]}
    assert set(sizes) == {"supervisor", "broker", "registry", "publish", "share", "subscribe"}
    assert found["rss_bytes"] == sum(sizes.values())
    assert found["rss_bytes"] <= LARGEST_BYTES, sizes
