"""What is left of `sluice up` once the stack is ready: 10 MB that own the children, for as long as they run.

The process that started them becomes this program (exec: same id, same children, same lock), so that no
interpreter full of libraries idles beside them. Standard library only, run as `python -I -S keeper.py
run/children.json`. A child that ends is started again, three times in five minutes at most; then the rest is
stopped. SIGTERM, SIGINT and SIGHUP stop all, the last started first. SIGKILL needs no help: the children are
on a leash.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

RESTARTS, WINDOW_SECONDS = 3, 300.0
PATIENCE_SECONDS = 20.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ToldToStop(Exception):  # noqa: N818 - an order, not an error
    """Raised by a signal, out of a wait that would go on otherwise."""


class Keeper:
    """Children by process id. `state`: stack_file, log, and a list of children (role, pid, command, out)."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.children: dict[int, dict[str, Any]] = {child["pid"]: child for child in state["children"]}
        self.failures: list[float] = []

    def keep(self) -> int:
        """Watch until told to stop (0) or until a child cannot be kept alive (1)."""
        for number in SIGNALS:
            signal.signal(number, _told_to_stop)
        code = 0
        try:
            while code == 0:
                pid, status = os.waitpid(-1, 0)
                if pid in self.children and not self._again(pid, status):
                    code = 1
        except ToldToStop:
            pass
        self.stop()
        return code

    def stop(self) -> None:
        """Stop the children one after the other, the last started first, and take their ids out of
        stack.json.
        """
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for pid in list(self.children)[::-1]:
            if not self._ended(pid, 0):
                os.kill(pid, signal.SIGTERM)
                if not self._ended(pid, PATIENCE_SECONDS):
                    os.kill(pid, signal.SIGKILL)
                    self._ended(pid, PATIENCE_SECONDS)
        self.children.clear()
        self._write_pids({})

    def _ended(self, pid: int, patience_seconds: float) -> bool:
        end = time.monotonic() + patience_seconds
        while True:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return True
            except ChildProcessError:
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)

    def _again(self, pid: int, status: int) -> bool:
        child = self.children.pop(pid)
        now = time.monotonic()
        self.failures = [when for when in self.failures if now - when < WINDOW_SECONDS] + [now]
        code = os.waitstatus_to_exitcode(status)
        if len(self.failures) > RESTARTS:
            self._say(f"{child['role']} ended with {code} and was started again too often: giving up")
            return False
        self._say(f"{child['role']} ended with {code}: starting it again")
        time.sleep(0.5)  # a port or a lock of the old one may need a moment
        child["pid"] = _spawn(child["command"], child["out"])
        self.children[child["pid"]] = child
        self._write_pids({found["role"]: found["pid"] for found in self.children.values()})
        return True

    def _write_pids(self, pids: dict[str, int]) -> None:
        file = self.state["stack_file"]
        try:
            with open(file) as stream:  # noqa: PTH123 - pathlib alone is 2 MB here
                content = json.load(stream)
            content["pids"] = {"supervisor": os.getpid(), **pids} if pids else {}
            handle = os.open(f"{file}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(handle, (json.dumps(content, indent=2) + "\n").encode())
            os.close(handle)
            os.replace(f"{file}.new", file)  # noqa: PTH105
        except (OSError, ValueError) as problem:
            self._say(f"stack.json could not be written: {problem}")

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n"
        handle = os.open(self.state["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, line.encode())
        os.close(handle)


def _told_to_stop(number: int, frame: FrameType | None) -> None:
    raise ToldToStop


def _spawn(command: list[str], out: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)


def main(file: str) -> int:
    """Keep the children that `file` lists; they must be children of this very process."""
    with open(file) as stream:  # noqa: PTH123
        return Keeper(json.load(stream)).keep()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
