"""What ends with what: leash and keeper with small children, and what a broker's end means."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, FatalError, RetriableError, SluiceError
from sluice.stack import broker, children, keeper, leash, ports, runs
from sluice.stack.home import Home

STARTER = """\
import os, subprocess, sys
leash = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid())]
child = subprocess.Popen([*leash, sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""
KEPT = """\
import json, os, subprocess, sys
state = json.loads(sys.argv[2])
for child in state["children"]:
    child["pid"] = subprocess.Popen(child["command"]).pid
open(sys.argv[3], "w").write(json.dumps(state))
os.execv(sys.executable, [sys.executable, "-I", "-S", sys.argv[1], sys.argv[3]])
"""


def eventually(check: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    return runs.rss_bytes(pid) is None


def test_a_leashed_child_dies_with_its_parent() -> None:
    command = [sys.executable, "-c", STARTER, leash.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait()
    assert eventually(lambda: gone(child))


def test_a_leash_on_a_dead_parent_starts_nothing(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    command = [sys.executable, "-I", "-S", leash.__file__, "1", "/usr/bin/touch", str(touched)]
    assert subprocess.run(command, check=False).returncode == 1
    assert not touched.exists()


def start_keeper(folder: Path, *scripts: str) -> tuple[subprocess.Popen[bytes], Path]:
    stack_file = folder / "stack.json"
    stack_file.write_text(json.dumps({"bootstrap": "here", "pids": {}}))
    state = {
        "stack_file": str(stack_file),
        "log": str(folder / "log"),
        "children": [
            {"role": f"role{n}", "command": ["/bin/sh", "-c", script], "out": str(folder / f"out{n}")}
            for n, script in enumerate(scripts)
        ],
    }
    command = [sys.executable, "-c", KEPT, keeper.__file__, json.dumps(state), str(folder / "state")]
    return subprocess.Popen(command), stack_file


def pids(stack_file: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(stack_file.read_text())["pids"]
    return found


def test_the_keeper_starts_a_dead_child_again_and_stops_all_on_request(tmp_path: Path) -> None:
    process, stack_file = start_keeper(
        tmp_path, "exec sleep 60", f"echo $$ >> {tmp_path}/second; exec sleep 60"
    )
    second = tmp_path / "second"
    assert eventually(lambda: second.exists() and second.read_text().endswith("\n"))
    first_life = int(second.read_text())
    assert eventually(lambda: b"keeper.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    os.kill(first_life, signal.SIGKILL)
    assert eventually(lambda: len(second.read_text().split()) == 2)
    assert eventually(lambda: pids(stack_file).get("role1") == int(second.read_text().split()[1]))
    now = pids(stack_file)
    assert now["supervisor"] == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert all(gone(pid) for pid in now.values())
    assert json.loads(stack_file.read_text()) == {"bootstrap": "here", "pids": {}}


def test_the_keeper_gives_up_on_a_child_that_keeps_dying(tmp_path: Path) -> None:
    process, stack_file = start_keeper(tmp_path, "exec sleep 60", "exit 3")
    assert process.wait(30) == 1
    assert (tmp_path / "log").read_text().count("starting it again") == keeper.RESTARTS
    assert "giving up" in (tmp_path / "log").read_text()
    assert pids(stack_file) == {}


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("ERROR java.io.IOException: No space left on device", RetriableError, "is full"),
        (
            "org.apache.kafka.common.KafkaException: java.net.BindException: Address already in use",
            RetriableError,
            "port",
        ),
        ("org.apache.kafka.common.errors.CorruptRecordException: x", FatalError, "damaged"),
        ("The Cluster ID doesn't match InconsistentClusterIdException", FatalError, "damaged"),
        ("There is insufficient memory for the Java Runtime", RetriableError, "memory"),
        ("something else", RetriableError, "ended before it was ready"),
    ],
)
def test_what_a_brokers_end_means(log: str, kind: type[SluiceError], words: str) -> None:
    error = broker.explain(log, Home(Path("/home")))
    assert type(error) is kind
    assert words in error.message
    assert error.remedy


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    broker.check_disk(tmp_path, 1)
    with pytest.raises(RetriableError, match="MB left"):
        broker.check_disk(tmp_path, 1 << 60)


def test_ports() -> None:
    found = ports.free(5)
    assert len(set(found)) == 5
    assert all(ports.FIRST <= port < ports.LAST for port in found)
    assert ports.claim(0, "--port") > 0
    with socket.socket() as holder:
        holder.bind((ports.HOST, 0))
        holder.listen()
        with pytest.raises(ConfigurationError, match="is taken"):
            ports.claim(holder.getsockname()[1], "--port")


def test_no_child_imports_from_where_the_user_stands(tmp_path: Path) -> None:
    """Somebody left `argparse.py` among the files of a shared folder, and `sluice up` is called there."""
    (tmp_path / "argparse.py").write_text("raise SystemExit(99)")
    command = children.python("sluice.stack.registry", "--help")
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_no_command_starts_a_module_by_itself() -> None:
    sources = Path(children.__file__).parents[1].rglob("*.py")
    assert [file.name for file in sources if '"-m"' in file.read_text()] == ["children.py"]
