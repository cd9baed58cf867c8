"""Which of a home's processes run: each role leaves `run/<role>-<pid>.json` for as long as it lives.

A file outlives a SIGKILL, and process ids are used again; so a record counts only while a process with that
id and that start time exists, and others are removed when somebody looks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One living process: its role (`publish`, `share`, ...), contract or task, and resident memory."""

    role: str
    pid: int
    of: str
    rss_bytes: int


@contextmanager
def running(home: Path, role: str, of: str = "") -> Iterator[None]:
    """Show this process in `sluice status` while the block runs: `with running(settings.home, "share", name):
    ...`.

    Never fails the command: a home that cannot be written to (a subscriber without a stack) shows nothing.
    """
    import os

    file = home / "run" / f"{role}-{os.getpid()}.json"
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        content = {"role": role, "pid": os.getpid(), "started": _started(os.getpid()), "of": of}
        file.write_text(json.dumps(content))
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def runs(home: Path) -> list[Run]:
    """The roles that run for this home now, in order of role and id."""
    found = []
    for file in sorted((home / "run").glob("*-*.json")):
        run = _living(file)
        if run is None:
            file.unlink(missing_ok=True)
        else:
            found.append(run)
    return found


def rss_bytes(pid: int) -> int | None:
    """Resident memory of a process, shared pages included; None where it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.memory_info().rss)
    except psutil.Error:
        return None


def _living(file: Path) -> Run | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        pid, started = int(content["pid"]), content["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    memory = rss_bytes(pid)
    if memory is None or (started is not None and _started(pid) != started):
        return None
    return Run(str(content["role"]), pid, str(content.get("of", "")), memory)


def _started(pid: int) -> str | None:
    """What tells two processes of one id apart: on Linux the start in clock ticks since boot, elsewhere
    nothing.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
