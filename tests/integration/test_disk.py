"""A disk that fills up under load: nothing acknowledged is lost, the user is told why and what to do, and once there is
room all goes on by itself.

As root on a small tmpfs, filled while the keeper sleeps: the broker halts in the middle of a write, as where another
program fills the disk within a second. (What the keeper does when it sees it coming: tests/unit/test_stack_disk.py.)
Any other user puts RLIMIT_FSIZE on the broker alone: its writes fail just so, but the disk has room, and the broker
that is started in its place has no limit. Not modelled: a disk that takes a write and loses it.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from sluice.stack import control, disk
from sluice.stack.home import Home
from streams.kafka.clients import Connection
from tests.integration.pressure_help import Trial, sluice, trial

MB = 1 << 20
SIZE_MB = 600
ROOT = os.geteuid() == 0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A stack of its own, kept by a supervisor; as root on a small disk."""
    small = tmp_path / "small"
    small.mkdir()
    if ROOT:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(small)], check=True)
    home = Home(small / "home")
    started = sluice(home.path, "up", "--detach", "--port", "0", "--registry-port", "0")
    try:
        told = started.communicate(timeout=120)[0]
        assert started.returncode == 0, told
        yield home
    finally:
        started.kill()
        control.stop(home)
        if ROOT:
            subprocess.run(["umount", "--lazy", str(small)], check=True)


def pid(home: Home, role: str) -> int:
    """0 where it does not run."""
    return int(home.stack()["pids"].get(role, 0))


def zombie(pid: int) -> bool:
    """Ended, and not buried yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def full_disk(running: Trial, home: Home) -> None:
    """Fills it, says what commands say of that, and makes room again."""
    supervisor, broker = pid(home, "supervisor"), pid(home, "broker")
    ballast = home.path.parent / "ballast"
    os.kill(supervisor, signal.SIGSTOP)
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.free(home.path) - MB)
        assert running.until(lambda: zombie(broker), 60)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    running.endure(2)
    before = dict(running.last)
    started = [sluice(home.path, command) for command in ("status", "lag", "doctor")]
    for each in started:
        text = each.communicate(timeout=90)[0]
        assert each.returncode in (1, 3), text
        assert f"MB free at {home.path}, the broker needs 256" in text
        assert "Free some room: it then goes on by itself" in text
        assert "Traceback" not in text
    running.endure(1)
    assert running.last == before
    assert not zombie(supervisor)  # it writes a log on that disk
    ballast.unlink()


def limited_files(running: Trial, home: Home) -> None:
    """Until the keeper has started another broker, without a limit."""
    broker = pid(home, "broker")
    hard = resource.prlimit(broker, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(broker, resource.RLIMIT_FSIZE, (MB, hard))
    assert running.until(lambda: pid(home, "broker") not in (0, broker), 90)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_fills_up_stops_nobody_for_good(home: Home, tmp_path: Path) -> None:
    stack = home.stack()

    def connection(role: str) -> Connection:
        password = SecretStr((home.secrets / role).read_text().strip())
        return Connection(stack["bootstrap"], role, password, registry_url=stack["registry_url"])

    with trial(home.path, connection, tmp_path / "load") as running:
        (full_disk if ROOT else limited_files)(running, home)
        running.back()  # what was written meanwhile is shared, too
        assert running.peak_mib < 400
        for name, process in running.processes.items():
            assert "Traceback" not in process.text
            assert "waiting, and nothing is lost" in process.text or not ROOT, name
        running.check()  # every process has waited
    logs = home.logs
    assert ("No space left on device" if ROOT else "File too large") in (logs / "broker.log").read_text()
    assert ("starting broker again" if ROOT else "starting it again") in (logs / "supervisor.log").read_text()
