"""Product processes as a supervisor runs them: started again whenever they end, unless they are held down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sluice.stack import children, leash
from tests.chaos.proxy import Proxy

ROOT = Path(__file__).parents[2]
AGAIN_SECONDS = 0.3


@dataclass(slots=True)
class Slot:
    """One process. `arguments` of the sluice command; it finds the broker behind `proxy`."""

    name: str
    arguments: list[str]
    home: Path
    log: Path
    proxy: Proxy
    recycling: bool = True
    wanted: bool = False
    starts: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    process: subprocess.Popen[bytes] | None = None
    _due: float = 0.0

    def look(self) -> None:
        """Call it often: notices an end, and starts what is wanted and does not run. Main thread only (leash.py)."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.ends[code] += 1
            self.process, self._due = None, time.monotonic() + AGAIN_SECONDS
        if self.wanted and self.process is None and time.monotonic() >= self._due:
            self._start()

    def _start(self) -> None:
        module = "sluice.cli.main" if self.recycling else "tests.chaos.child"
        command = [*leash.prefix(), sys.executable, "-m", module, *self.arguments]
        environment = {
            **children.environment(),
            "SLUICE_HOME": str(self.home),
            "SLUICE_BOOTSTRAP": f"127.0.0.1:{self.proxy.port}",
            "PYTHONPATH": str(ROOT),
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, process_group=0
            )
        self.starts += 1

    def send(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def down(self, patience_seconds: float = 40) -> None:
        """SIGTERM, and its end awaited; killed after the patience."""
        self.wanted = False
        if self.process is not None:
            self.send(signal.SIGCONT)
            children.end(self.process, patience_seconds)
            self.look()
