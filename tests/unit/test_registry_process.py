"""The registry as a process, where no broker is needed: how it refuses to start."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def start(*options: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    command = [sys.executable, "-m", "sluice.stack.registry", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "registry").write_text("x\n")
    return tmp_path


def test_a_port_that_is_taken_is_said_with_a_remedy(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = start("--home", str(home), "--port", str(port), "--bootstrap", "127.0.0.1:1")
    assert code == 3
    assert str(port) in told
    assert "--port" in told


def test_passwords_do_not_leave_the_machine_in_the_clear(home: Path) -> None:
    code, told = start("--home", str(home), "--port", "0", "--host", "0.0.0.0", "--bootstrap", "127.0.0.1:1")
    assert code == 2
    assert "--tls-cert" in told


def test_one_registry_per_home(home: Path) -> None:
    (home / "run").mkdir()
    with (home / "run" / "registry.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, told = start("--home", str(home), "--port", "0", "--bootstrap", "127.0.0.1:1")
    assert code == 3
    assert "already serves" in told


def test_a_home_without_a_stack(tmp_path: Path) -> None:
    code, told = start("--home", str(tmp_path), "--port", "0")
    assert code == 2
    assert "sluice up" in told


def test_a_broker_that_never_answers(home: Path) -> None:
    options = ["--home", str(home), "--port", "0", "--bootstrap", "127.0.0.1:1", "--wait", "0.5"]
    code, told = start(*options)
    assert code == 3
    assert "127.0.0.1:1" in told
