"""`sluice publish` as a user runs it: a process, its exit codes, what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import RunningStack
from tests.integration.publish_help import line, write_contract, write_rows

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "sluice.cli.main", "publish"]


def environment(stack: RunningStack) -> dict[str, str]:
    return {**os.environ, "SLUICE_HOME": str(stack.home)}


def run(stack: RunningStack, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=ROOT,
        env=environment(stack),
        capture_output=True,
        text=True,
        timeout=120,
    )


def report(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert found.returncode == 0, found.stderr
    parsed = json.loads(found.stdout)
    assert isinstance(parsed, dict)
    return parsed


def test_opens_publishes_and_sums_up(stack: RunningStack, tmp_path: Path) -> None:
    contract = write_contract(tmp_path)
    broken = write_rows(tmp_path / "counts.csv", 1_000, bad_every=100)
    refused = run(stack, contract, "--no-open")
    assert refused.returncode == 2
    assert "Open the contract as the owner's admin" in refused.stderr
    first = report(run(stack, contract, "--json"))
    assert (first["published"], first["rejected"], first["resumed_from"]) == (990, 10, 0)
    assert [each["line"] for each in first["first_rejected"]] == sorted(broken)
    again = run(stack, contract, "--no-open")
    assert again.returncode == 0
    assert "published 0 events" in again.stderr
    assert "resumed behind line 1,001" in again.stderr
    with (tmp_path / "counts.csv").open("a") as file:
        file.write("s1,never,1\n")
    more = run(stack, contract)
    assert "rejected 1 rows" in more.stderr
    assert "line 1,002: time-unreadable (at)" in more.stderr
    assert "never" not in more.stderr + more.stdout
    anew = report(run(stack, contract, "--json", "--from-start"))
    assert (anew["published"], anew["rejected"]) == (990, 11)


def test_follows_until_it_is_told_to_stop(stack: RunningStack, tmp_path: Path) -> None:
    contract = write_contract(tmp_path)
    source = tmp_path / "counts.csv"
    write_rows(source, 10)
    process = subprocess.Popen(
        [*COMMAND, str(contract), "--follow", "--json"],
        cwd=ROOT,
        env=environment(stack),
        stdout=subprocess.PIPE,
    )
    try:
        time.sleep(1)
        with source.open("a") as file:
            for index in range(10, 15):
                file.write(line(index))
        time.sleep(6)
        second = run(stack, contract, "--follow")
        assert second.returncode == 3
        assert "Another process on this machine holds" in second.stderr
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(int(each.split()[1]) for each in status.splitlines() if each.startswith("VmRSS"))
        assert resident < 110_000, f"{resident} kB"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert json.loads(out)["published"] == 15


def test_ctrl_c_says_how_far_it_got(stack: RunningStack, tmp_path: Path) -> None:
    contract = write_contract(tmp_path)
    write_rows(tmp_path / "counts.csv", 1_000)
    process = subprocess.Popen(
        [*COMMAND, str(contract), "--rate", "20"],
        cwd=ROOT,
        env=environment(stack),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "interrupted after" in said
    assert "nothing new" not in said
    rest = report(run(stack, contract, "--json"))
    assert f"published {1_000 - rest['published']:,} events" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none.yaml"], 2, "Cannot read the contract"),
        (["CONTRACT"], 2, "does not exist"),
        (["CONTRACT", "--source", "none.csv"], 2, "does not exist"),
        (["CONTRACT", "--source", "ROOT/README.md"], 2, "no column 'sensor'"),
        (["CONTRACT", "--rate", "-1"], 2, "Invalid value"),
    ],
)
def test_errors_have_a_remedy_and_no_stack_trace(
    stack: RunningStack, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    contract = write_contract(tmp_path)
    words = [word.replace("CONTRACT", str(contract)).replace("ROOT", str(ROOT)) for word in words]
    found = run(stack, *words)
    assert found.returncode == code, found.stderr
    assert said in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    contract = write_contract(tmp_path)
    write_rows(tmp_path / "counts.csv", 3)
    variables = {**os.environ, "SLUICE_HOME": str(tmp_path / "home")}
    found = subprocess.run([*COMMAND, str(contract)], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert found.returncode == 2
    assert "sluice up --detach" in found.stderr
    assert not (tmp_path / "home").exists()
