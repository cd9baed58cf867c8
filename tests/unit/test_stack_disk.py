"""A disk that is nearly full: what the keeper does, and what a user is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from schemas.errors import RetriableError
from sluice.cli import main
from sluice.cli.away import EVERY_SECONDS, Away
from sluice.stack import disk, keeper
from tests.unit.test_stack_processes import KEPT, eventually, gone, pids

FULL = Path("/proc")  # a file system without a free block


def turn(place: Path, to: Path) -> None:
    """The same folder on another disk, as far as anybody can see."""
    fresh = place.with_suffix(".new")
    fresh.symlink_to(to)
    fresh.replace(place)


@pytest.mark.skipif(not FULL.is_dir(), reason="needs /proc, as a disk without room")
def test_the_keeper_stops_the_broker_in_order_and_starts_it_when_there_is_room(tmp_path: Path) -> None:
    place, trace = tmp_path / "place", tmp_path / "trace"
    place.symlink_to(tmp_path)
    script = f"trap 'echo in order >> {trace}; exit 0' TERM; echo up >> {trace}; while :; do sleep .05; done"
    stack_file = tmp_path / "stack.json"
    stack_file.write_text(json.dumps({"pids": {}}))
    roles = {"broker": script, "registry": "exec sleep 60"}
    state = {
        "stack_file": str(stack_file),
        "log": str(tmp_path / "log"),
        "children": [
            {"role": role, "command": ["/bin/sh", "-c", text], "out": str(tmp_path / role)}
            for role, text in roles.items()
        ],
        "disk": {
            "folder": str(place),
            "role": "broker",
            "stop_bytes": 1,
            "start_bytes": 2,
            "warn_bytes": 3,
            "look_seconds": 0.1,
        },
    }
    command = [sys.executable, "-c", KEPT, keeper.__file__, json.dumps(state), str(tmp_path / "state")]
    with subprocess.Popen(command) as process:
        assert eventually(lambda: trace.exists())
        for times in range(1, keeper.RESTARTS + 3):  # oftener than a child may fail
            turn(place, FULL)
            assert eventually(lambda: trace.read_text().split("\n")[-2] == "in order")
            assert eventually(lambda: pids(stack_file).keys() == {"supervisor", "registry"})
            turn(place, tmp_path)
            assert eventually(lambda n=times: trace.read_text().count("up") == n + 1)  # type: ignore[misc]
        assert eventually(lambda: pids(stack_file).keys() == {"supervisor", "registry", "broker"})
        now = pids(stack_file)
        os.kill(now["broker"], signal.SIGKILL)  # that one counts as a failure, and is one only
        assert eventually(lambda: pids(stack_file).get("broker") not in (None, now["broker"]))
        turn(place, FULL)
        os.kill(pids(stack_file)["broker"], signal.SIGKILL)  # found no room before the keeper looked
        assert eventually(lambda: "broker" not in pids(stack_file))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert gone(now["registry"])
    assert pids(stack_file) == {}
    log = (tmp_path / "log").read_text()
    assert log.count("disk full: 0 MB are left") == keeper.RESTARTS + 3
    assert log.count("starting it again") == 1


def test_the_keeper_outlives_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    found = keeper.Keeper(
        {"log": str(tmp_path / "not" / "there"), "children": [], "stack_file": str(tmp_path)}
    )
    found._say("something")
    found._write_pids({})


def test_words_for_a_disk(tmp_path: Path) -> None:
    mb = 1 << 20
    assert disk.words(tmp_path, 2000 * mb, answers=False, kept=True) == ""
    assert "nearly full: 500 MB free" in disk.words(tmp_path, 500 * mb, answers=True, kept=True)
    stopped = disk.words(tmp_path, 100 * mb, answers=False, kept=True)
    assert f"disk full: 100 MB free at {tmp_path}, the broker needs 256." in stopped
    assert "goes on by itself" in stopped
    assert "sluice up --detach" in disk.words(tmp_path, 100 * mb, answers=False, kept=False)
    assert disk.free(tmp_path / "not" / "there") > 0


@pytest.mark.parametrize("content", [None, "{", "[]", '{"pids": 1}', '{"pids": {"supervisor": "x"}}'])
def test_a_stack_that_says_nothing_is_no_reason(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "stack.json").write_text(content)
    assert disk.why_silent(tmp_path) == ""


def test_a_broker_that_is_away_is_told_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    away = Away(tmp_path, lambda: now[0])
    lost = {"event": "producer", "error": "_ALL_BROKERS_DOWN"}
    refused = {"event": "librdkafka", "message": "FAIL: Connect to ipv4#127.0.0.1:1 failed: refused"}
    assert away(None, "", {"event": "reset"}) == {"event": "reset"}
    with pytest.raises(structlog.DropEvent):
        away(None, "", {"event": "producer", "error": "_TRANSPORT"})
    said = away(None, "", dict(lost))
    assert "waiting, and nothing is lost" in said["event"]
    assert "sluice status" in said["remedy"]
    for again in (lost, refused):
        with pytest.raises(structlog.DropEvent):
            away(None, "", dict(again))
    now[0] += EVERY_SECONDS
    (tmp_path / "stack.json").write_text('{"pids": {}}')
    monkeypatch.setattr(disk, "START_BYTES", 1 << 62)
    assert "disk full: " in away(None, "", dict(refused))["remedy"]


def test_an_error_of_the_broker_names_the_full_disk_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stack.json").write_text('{"pids": {}}')
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    problem = RetriableError("No answer.", "Look at `sluice status`.")
    assert main._remedy(problem) == "Look at `sluice status`."
    monkeypatch.setattr(disk, "START_BYTES", 1 << 62)
    assert "disk full: " in main._remedy(problem)
    assert "Look at `sluice status`." in main._remedy(problem)


def test_a_file_that_takes_nothing_is_no_stack_trace(tmp_path: Path) -> None:
    """The slot's lock file cannot take the process id: files may have no length here."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "share").write_text("x")
    command = [sys.executable, "-m", "sluice.cli.main", "share", "traffic.detector-counts", "--slot", "0"]
    run = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command],
        env={**os.environ, "SLUICE_HOME": str(tmp_path), "SLUICE_BOOTSTRAP": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    assert "A file cannot be written: File too large." in run.stderr
    assert "-> A limit on the size of files (ulimit -f) stops it" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_log_on_a_full_disk_costs_its_lines_and_no_worker(tmp_path: Path) -> None:
    script = (
        "import structlog, sys; from pathlib import Path; from sluice.cli.share import _log;"
        f" _log(True, Path({str(tmp_path)!r})); log = structlog.get_logger();"
        " [log.info('x' * 10_000) for _ in range(9)]; print('alive', flush=True)"
    )
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert run.stdout == "alive\n"


def test_noise_keys_that_cannot_be_written_say_what_to_do(tmp_path: Path) -> None:
    """Nothing is shared that is not noted there first; so the worker ends, and says why."""
    script = (
        "import sys; from pathlib import Path; from streams.privacy import keystore\n"
        "file = keystore.path_of(Path(sys.argv[1]), 'me/person')\n"
        "try:\n with keystore.locked(file): keystore.store(file, {'format': 1})\n"
        "except keystore.KeyStoreError as error: print(error)"
    )
    run = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "Cannot write the noise key" in run.stdout
    assert "File too large" in run.stdout
    assert "-> Free the disk" in run.stdout
    assert [file.suffix for file in (tmp_path / "keys").iterdir()] == [".lock"]  # nothing half written
