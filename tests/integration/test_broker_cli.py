"""`sluice up | down | status` as processes: it resumes, it leaves no orphan, and each failure says what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from sluice.settings import load
from sluice.stack import jars
from sluice.stack.runs import running

SLUICE = [sys.executable, "-m", "sluice.cli.main"]
FREE_PORTS = ["--port", "0", "--registry-port", "0"]


class Machine:
    """One user's `$SLUICE_HOME`, and all that was started for it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.started: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "SLUICE_HOME": str(self.home), "COLUMNS": "200", **more}

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SLUICE, *arguments],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def foreground(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*SLUICE, "up", *FREE_PORTS], env=self.environment(), stderr=subprocess.DEVNULL
        )
        self.started.append(process)
        return process

    def status(self) -> dict[str, Any]:
        run = self.run("status", "--json")
        found: dict[str, Any] = json.loads(run.stdout)
        assert run.returncode == (0 if found["ready"] else 1)
        return found

    def pids(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self.home / "stack.json").read_text())["pids"]
        except FileNotFoundError:
            return {}
        return found

    def leftovers(self) -> list[int]:
        """Processes that name this home on their command line."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE and str(self.home) in " ".join(
                process.info["cmdline"] or ()
            ):
                found.append(process.info["pid"])
        return found


def eventually(check: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "home")
    yield machine
    machine.run("down")
    for process in machine.started:
        process.kill()
        process.wait()
    assert eventually(lambda: machine.leftovers() == [], 10)


def test_a_life(machine: Machine) -> None:
    """Up, once more up, down, up again with everything kept, purge."""
    assert machine.run("up", "--detach", *FREE_PORTS).returncode == 0
    first = machine.status()
    assert first["ready"]
    assert {run["role"] for run in first["processes"]} == {"supervisor", "broker", "registry"}
    assert first["rss_bytes"] == sum(run["rss_bytes"] for run in first["processes"])
    assert first["disk_data_bytes"] > 0
    for file in (*machine.home.glob("secrets/*"), machine.home / "stack.json"):
        assert file.stat().st_mode & 0o077 == 0

    again = machine.run("up", "--detach")
    assert again.returncode == 0
    assert "already running" in again.stderr
    assert first["bootstrap"] in again.stderr
    assert machine.pids() == {run["role"]: run["pid"] for run in first["processes"]}

    admin = AdminClient(load(home=machine.home).connection("admin").settings())
    for result in admin.create_topics([NewTopic("kept", 1)]).values():
        result.result(10)

    down = machine.run("down")
    assert down.returncode == 0
    assert "has stopped" in down.stderr
    assert not machine.status()["ready"]
    assert machine.leftovers() == []
    assert "No stack runs" in machine.run("down").stderr

    assert machine.run("up", "--detach").returncode == 0  # on the ports that it had before
    second = machine.status()
    assert {**second, **dict.fromkeys(CHANGING)} == {**first, **dict.fromkeys(CHANGING)}
    admin = AdminClient(load(home=machine.home).connection("admin").settings())
    assert "kept" in admin.list_topics(timeout=10).topics

    with running(machine.home, "share", "road"):  # this process
        refused = machine.run("down", "--purge")
        assert refused.returncode == 3
        assert "share (process" in refused.stderr
        assert machine.status()["ready"]  # refused before anything was stopped
    purge = machine.run("down", "--purge")
    assert purge.returncode == 0
    assert sorted(path.name for path in machine.home.iterdir()) == ["secrets"]


CHANGING = ("processes", "rss_bytes", "disk_data_bytes", "disk_logs_bytes", "disk_free_bytes")


def test_no_orphan_after_sigkill(machine: Machine) -> None:
    """In the middle of the start, in the foreground, and in the background."""
    process = machine.foreground()
    assert eventually(lambda: "broker" in machine.pids())
    process.kill()
    process.wait()
    assert eventually(lambda: machine.leftovers() == [], 5)

    process = machine.foreground()
    assert eventually(lambda: machine.status()["ready"], 60)
    assert len(machine.leftovers()) == 3
    process.kill()
    process.wait()
    assert eventually(lambda: machine.leftovers() == [], 5)

    assert machine.run("up", "--detach").returncode == 0  # which recovers the log, too
    assert machine.status()["ready"]
    os.kill(machine.pids()["supervisor"], signal.SIGKILL)
    assert eventually(lambda: machine.leftovers() == [], 5)


def test_ctrl_c_stops_all_and_a_dead_broker_comes_back(machine: Machine) -> None:
    process = machine.foreground()
    assert eventually(lambda: machine.status()["ready"], 60)
    assert eventually(lambda: "keeper.py" in " ".join(psutil.Process(process.pid).cmdline()))
    before = machine.pids()
    os.kill(before["broker"], signal.SIGKILL)
    assert eventually(lambda: machine.pids().get("broker") not in (None, before["broker"]))
    assert eventually(lambda: machine.status()["ready"], 60)
    assert machine.pids()["registry"] == before["registry"]
    assert "broker ended with -9" in (machine.home / "logs" / "supervisor.log").read_text()

    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert machine.leftovers() == []
    assert machine.pids() == {}


@pytest.mark.parametrize("flag", ["--port", "--registry-port"])
def test_port_taken(machine: Machine, flag: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = str(holder.getsockname()[1])
        ports = ["--port", "0", "--registry-port", "0", flag, taken]
        for mode in ([], ["--detach"]):
            run = machine.run("up", *mode, *ports)
            assert run.returncode == 2
            assert f"Port {taken} is taken" in run.stderr
            assert f"-> Name another with `sluice up {flag}" in run.stderr
    assert machine.leftovers() == []


def test_damaged_data(machine: Machine) -> None:
    """A log that cannot be read, a folder that has lost its name: refused until it is purged."""
    assert machine.run("up", "--detach", *FREE_PORTS).returncode == 0
    machine.run("down")
    data = machine.home / "data"
    for log in data.glob("__cluster_metadata-0/*.log"):
        log.write_bytes(bytes(range(256)) * 40)
    for snapshot in data.glob("__cluster_metadata-0/*.checkpoint"):
        snapshot.write_bytes(b"damaged" * 100)
    for _ in range(2):  # Kafka would go on, with all topics and rights forgotten
        run = machine.run("up", "--detach")
        assert run.returncode == 2
        assert "topics lie there that the broker knows nothing of" in run.stderr
        assert "sluice down --purge" in run.stderr

    (data / "meta.properties").unlink()
    run = machine.run("up", "--detach")
    assert run.returncode == 2
    assert "meta.properties is gone" in run.stderr
    assert machine.run("down", "--purge").returncode == 0
    assert machine.run("up", "--detach", *FREE_PORTS).returncode == 0
    assert machine.status()["ready"]


def test_java_too_old(machine: Machine, tmp_path: Path) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    run = machine.run("up", SLUICE_JAVA=str(old))
    assert run.returncode == 2
    assert "Java 11" in run.stderr
    assert "SLUICE_JAVA" in run.stderr


def test_no_network_and_no_jars(machine: Machine, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), nowhere)
    run = machine.run("up", SLUICE_CACHE=str(tmp_path / "cache"), NO_PROXY="", no_proxy="", **proxies)
    assert run.returncode == 3
    assert "46 jars, 45 MB, are downloaded" in run.stderr
    assert "could not be fetched" in run.stderr
    assert "SLUICE_KAFKA_JARS" in run.stderr


def test_wrong_checksum(machine: Machine, tmp_path: Path) -> None:
    """A damaged jar of the cache is thrown away; one of a named folder is named."""
    good, cache = jars.class_path(), tmp_path / "cache" / "sluice" / f"kafka-{jars.KAFKA_VERSION}"
    cache.mkdir(parents=True)
    for jar in good:
        (cache / jar.name).symlink_to(jar)
    damaged = cache / jars.locked()[0].name
    damaged.unlink()
    damaged.write_bytes(b"not what it says")
    run = machine.run("up", SLUICE_KAFKA_JARS=str(cache))
    assert run.returncode == 2
    assert f"{damaged} has a checksum other than the pinned one" in run.stderr
    run = machine.run("up", SLUICE_CACHE=str(tmp_path / "cache"))
    assert run.returncode == 2
    assert "wrong checksum" in run.stderr
    assert not damaged.exists()


def test_jars_of_a_named_folder(machine: Machine, tmp_path: Path) -> None:
    named = str(jars.class_path()[0].parent)
    assert machine.run("up", "--detach", *FREE_PORTS, SLUICE_KAFKA_JARS=named).returncode == 0
    assert machine.status()["ready"]


def test_damaged_classes_cost_time_and_nothing_else(machine: Machine, tmp_path: Path) -> None:
    """Learnt at the first start. With its end zeroed, as after a power cut, Java crashes if it believes the file."""
    cache = tmp_path / "cache" / "sluice" / f"kafka-{jars.KAFKA_VERSION}"
    cache.mkdir(mode=0o755, parents=True)
    for jar in jars.class_path():
        (cache / jar.name).symlink_to(jar)
    own = {"SLUICE_CACHE": str(tmp_path / "cache"), "SLUICE_JAVA": ""}
    assert machine.run("up", "--detach", *FREE_PORTS, **own).returncode == 0
    assert machine.run("down", "--purge", **own).returncode == 0
    (classes,) = cache.glob("classes-*.aot")
    size = classes.stat().st_size
    with classes.open("r+b") as file:
        file.truncate(size * 2 // 3)
        file.truncate(size)
    run = machine.run("up", "--detach", *FREE_PORTS, **own)
    assert run.returncode == 0, run.stderr
    assert machine.status()["ready"]
