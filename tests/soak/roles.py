"""Real processes of the product, as a user starts them, and what they hold: memory, files, threads."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sluice.stack import children, leash

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at `at` seconds; `mb` is resident memory in 1,000,000 bytes."""

    at: float
    mb: float
    files: int
    threads: int


@dataclass(slots=True)
class Role:
    """A process by its role. `module` and `arguments` start it; one that others started is told by its `pid`."""

    name: str
    arguments: Sequence[str] = ()
    module: str = "sluice.cli.main"
    pid: int = 0
    held: list[Held] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    _seen: psutil.Process | None = None

    def start(self, home: Path, log: Path, more: Mapping[str, str] | None = None) -> None:
        """With our environment and `more`. Main thread only (leash.py)."""
        environment = {**os.environ, "SLUICE_HOME": str(home), "PYTHONPATH": str(ROOT), **(more or {})}
        command = [*leash.prefix(), sys.executable, "-m", self.module, *self.arguments]
        with log.open("ab") as err, log.with_suffix(".out").open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, process_group=0
            )
        self.pid, self.log = self.process.pid, log

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def failed(self) -> bool:
        return self.process is not None and self.process.poll() not in (None, 0)

    def out(self) -> str:
        """What it has printed."""
        return self.log.with_suffix(".out").read_text() if self.log is not None else ""

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text() if self.log is not None else ""

    def look(self, at: float) -> None:
        """A sample; none of a process that has gone."""
        with contextlib.suppress(psutil.Error):
            self._seen = self._seen or psutil.Process(self.pid)
            with self._seen.oneshot():
                memory, threads = self._seen.memory_info().rss, self._seen.num_threads()
            self.held.append(Held(at, memory / 1e6, self._seen.num_fds(), threads))

    def down(self, patience_seconds: float = 40) -> int | None:
        """SIGTERM, its end awaited, SIGKILL after the patience. Its exit code; None where we did not start it."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            children.end(self.process, patience_seconds)
        return self.process.returncode

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
