"""A child process of the stack: how it is started, so that it dies with us and a Ctrl-C is ours to answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluice.stack import leash


@dataclass(frozen=True, slots=True)
class Child:
    """What runs: `role` names it, `command` starts it, `out` takes what it prints (its logs rotate
    elsewhere).
    """

    role: str
    command: list[str]
    out: Path

    def spawn(self, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start it, in a process group of its own, with `variables` set. Main thread only: it dies with the caller."""
        with self.out.open("wb") as out:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={**environment(), **(variables or {})},
            )


def python(module: str, *words: str) -> list[str]:
    """A command that runs one of our modules. -P: else the folder where the user stands comes first on the path,
    and a file `json.py` that somebody left there, in /tmp or among downloads, would run as the user.
    """
    return [sys.executable, "-P", "-m", module, *words]


def leashed(role: str, command: list[str], out: Path) -> Child:
    """A child whose life is bound to this process."""
    return Child(role, [*leash.prefix(), *command], out)


def environment() -> dict[str, str]:
    """Ours, with glibc's arenas bounded: each costs a multi-threaded process resident memory."""
    return {**os.environ, "MALLOC_ARENA_MAX": "2"}


def end(process: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """Ask it to stop; kill it when the patience is over."""
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
