"""How much of the machine others use: a lag while they do says nothing about us."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil

BUSY_CORES = 0.5  # of others, from which on a second is theirs
AFTER_SECONDS = 10  # until what waited is gone


class Others:
    """Looked at about once a second. Processes that are ours: this one and those named."""

    def __init__(self) -> None:
        self.cores: list[tuple[float, float]] = []
        self._before: tuple[float, float] | None = None

    def look(self, at: float, ours: Iterable[int]) -> None:
        """`at`: seconds since the start."""
        used = _machine() - sum(map(_of, [os.getpid(), *ours]))
        if self._before is not None and at > self._before[0]:
            self.cores.append((at, max(0.0, used - self._before[1]) / (at - self._before[0])))
        self._before = at, used

    def busy_seconds(self) -> set[int]:
        """Whole seconds that do not count."""
        found: set[int] = set()
        for at, cores in self.cores:
            if cores > BUSY_CORES:
                found.update(range(int(at) - 1, int(at) + 1 + AFTER_SECONDS))
        return found & {int(at) for at, _ in self.cores}

    @property
    def mean(self) -> float:
        return sum(cores for _, cores in self.cores) / max(1, len(self.cores))


def _machine() -> float:
    """CPU seconds of all, since boot; waiting for a disk is no work."""
    found = psutil.cpu_times()
    idle = found.idle + getattr(found, "iowait", 0.0) + getattr(found, "guest", 0.0)
    return float(sum(found) - idle)


def _of(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid).cpu_times()
        return float(found.user + found.system)
    return 0.0
