"""Run a program that dies with its parent: `python -I -S leash.py PARENT_PID program arguments...`.

On Linux the kernel does it (PR_SET_PDEATHSIG, kept across exec): this process becomes the program. Elsewhere
it stays in between, watches for a change of its parent every half second and ends the program then. SIGKILL,
because a program that hangs in its own shutdown would be an orphan after all; Kafka's log and ours are made
for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def prefix() -> list[str]:
    """What to put before a command, in this process, to bind its life to this thread's. 12 ms, and no memory
    after.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main(argv: list[str]) -> int:
    parent, command = int(argv[1]), argv[2:]
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the line above
            return 1
        os.execv(command[0], command)
    return _watch(parent, command)


def _watch(parent: int, command: list[str]) -> int:
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: child.send_signal(received))
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
