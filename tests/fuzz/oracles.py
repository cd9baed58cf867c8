"""What holds for every input of every target, besides what the target itself checks."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.fuzz.targets import Target

# Acts that no input may bring about; audit events of Python itself, so that no import gets around them.
FORBIDDEN = frozenset(
    ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
     "os.remove", "os.rename", "os.mkdir", "shutil.rmtree", "marshal.loads", "ctypes.dlopen")
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Finding(AssertionError):  # noqa: N818 (what was found, not what failed)
    """An oracle's no. The message says which; it holds nothing of the input."""


def require(holds: bool, what: str) -> None:
    """Raises Finding unless `holds`. An assert would be rewritten, and would vanish under -O."""
    if not holds:
        raise Finding(what)


class Watch:
    """Runs a target on one input after another. One for each process: an audit hook cannot be taken back."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._acts: list[str] = []
        self._on = False
        self._importing = 0
        sys.addaudithook(self._heard)

    def run(self, run: Callable[[bytes], None], data: bytes) -> None:
        """Raises Finding where the input costs too much or does what none may; else what `run` raises."""
        spent, grown = self._once(run, data)
        require(not self._acts, f"an act that no input may bring about: {', '.join(sorted(set(self._acts)))}")
        require(grown <= self._target.mib << 10, f"more than {self._target.mib} MiB of memory")
        allowed = self._target.allowed(len(data))
        for _ in range(2):  # a collection of garbage may fall into one run, hardly into three
            if spent > allowed:
                spent = min(spent, self._once(run, data)[0])
        require(spent <= allowed, f"more than {allowed:.2f} s of CPU")

    def _once(self, run: Callable[[bytes], None], data: bytes) -> tuple[float, int]:
        """CPU seconds, and KiB by which the peak of memory rose."""
        peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        self._acts.clear()
        self._on = True
        try:
            run(data)
        finally:
            self._on = False
        return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in FORBIDDEN:
            if event in ("marshal.loads", "ctypes.dlopen") and _importing():
                return
            self._acts.append(event)
        elif event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            self._acts.append("open for writing")


def _importing() -> bool:
    """Whether a module is being loaded for the first time: its byte code comes from a file of marshal's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
