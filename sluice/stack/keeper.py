"""What is left of `sluice up` once the stack is ready: 10 MB that own the children, for as long as they run.

The process that started them becomes this program (exec: same id, same children, same lock), so that no
interpreter full of libraries idles beside them. Standard library only, run as `python -I -S keeper.py
run/children.json`. A child that ends is started again, three times in five minutes at most; then the rest is
stopped. SIGTERM, SIGINT and SIGHUP stop all, the last started first. SIGKILL needs no help: the children are
on a leash.

It also minds the disk: Kafka halts where a write fails, at once and with whatever it had half written, and could not
start again. So the broker is stopped in order while there is room for that, and started when there is room again;
that is no failure. One that found the disk full before we did (another program fills it faster) waits likewise.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

RESTARTS, WINDOW_SECONDS = 3, 300.0
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 1.0  # between two looks at the disk
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ToldToStop(Exception):  # noqa: N818 - an order, not an error
    """Raised by a signal, out of a wait that would go on otherwise."""


class Keeper:
    """Children by process id. `state`: stack_file, log, a list of children (role, pid, command, out), and maybe the
    disk: folder, stop_bytes, start_bytes, warn_bytes, and the role that fills it.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.children: dict[int, dict[str, Any]] = {child["pid"]: child for child in state["children"]}
        self.failures: list[float] = []
        self.disk: dict[str, Any] | None = state.get("disk")
        self.waiting: list[dict[str, Any]] = []  # for room on the disk
        self.warned = False

    def keep(self) -> int:
        """Watch until told to stop (0) or until a child cannot be kept alive (1)."""
        ended, bell = os.pipe()
        for end in (ended, bell):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _rings)
        for number in SIGNALS:
            signal.signal(number, _told_to_stop)
        alive, wait = True, (self.disk or {}).get("look_seconds", LOOK_SECONDS)
        try:
            while alive:
                if select.select([ended], [], [], wait)[0]:
                    os.read(ended, 4096)
                self._mind_the_disk()
                alive = self._bury()
        except ToldToStop:
            pass
        self.stop()
        return 0 if alive else 1

    def _bury(self) -> bool:
        """See to all children that have ended. False: one of them cannot be kept alive."""
        for pid in list(self.children):
            code: int | None = None
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended == 0:
                    continue
                code = os.waitstatus_to_exitcode(status)
            except ChildProcessError:  # it ended, and was buried, before this process became the keeper
                pass
            if not self._again(pid, code):
                return False
        return True

    def stop(self) -> None:
        """Stop the children one after the other, the last started first, and take their ids out of
        stack.json.
        """
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for pid in list(self.children)[::-1]:
            self._end(pid)
        self.children.clear()
        self._write_pids(None)

    def _end(self, pid: int) -> None:
        if not self._ended(pid, 0):
            os.kill(pid, signal.SIGTERM)
            if not self._ended(pid, PATIENCE_SECONDS):
                os.kill(pid, signal.SIGKILL)
                self._ended(pid, PATIENCE_SECONDS)

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

    def _again(self, pid: int, code: int | None) -> bool:
        child = self.children.pop(pid)
        if self._left() < self._bytes("stop_bytes"):
            self._wait_for_room(child)
            return True
        now = time.monotonic()
        self.failures = [when for when in self.failures if now - when < WINDOW_SECONDS] + [now]
        if len(self.failures) > RESTARTS:
            self._say(f"{child['role']} ended with {code} and was started again too often: giving up")
            return False
        self._say(f"{child['role']} ended with {code}: starting it again")
        time.sleep(0.5)  # a port or a lock of the old one may need a moment
        self._start(child)
        return True

    def _start(self, child: dict[str, Any]) -> None:
        child["pid"] = _spawn(child["command"], child["out"])
        self.children[child["pid"]] = child
        self._write_pids({found["role"]: found["pid"] for found in self.children.values()})

    def _mind_the_disk(self) -> None:
        """Stop who fills a disk that is nearly full, start who waits for room that is there now."""
        if self.disk is None:
            return
        left = self._left()
        if left >= self._bytes("warn_bytes"):
            self.warned = False
        elif not self.warned:
            self.warned = True
            self._say(
                f"the disk of {self.disk['folder']} is nearly full: {left >> 20} MB are left, the broker is stopped "
                f"at {self._bytes('stop_bytes') >> 20}"
            )
        if left < self._bytes("stop_bytes"):
            for pid, child in list(self.children.items()):
                if child["role"] == self.disk["role"]:
                    self._end(pid)
                    del self.children[pid]
                    self._wait_for_room(child)
        elif left >= self._bytes("start_bytes"):
            while self.waiting:
                child = self.waiting.pop()
                self._say(f"{left >> 20} MB are left on the disk: starting {child['role']} again")
                self._start(child)

    def _wait_for_room(self, child: dict[str, Any]) -> None:
        assert self.disk is not None
        self.waiting.append(child)
        self._say(
            f"disk full: {self._left() >> 20} MB are left at {self.disk['folder']}. {child['role']} is stopped, and "
            f"starts by itself as soon as {self._bytes('start_bytes') >> 20} MB are free; nothing acknowledged is lost"
        )
        self._write_pids({found["role"]: found["pid"] for found in self.children.values()})

    def _left(self) -> int:
        if self.disk is None:
            return sys.maxsize
        try:
            found = os.statvfs(self.disk["folder"])
        except OSError:  # a disk that is gone is not full
            return sys.maxsize
        return found.f_bavail * found.f_frsize

    def _bytes(self, name: str) -> int:
        return int(self.disk[name]) if self.disk is not None else 0

    def _write_pids(self, pids: dict[str, int] | None) -> None:
        """None: this process ends too."""
        file = self.state["stack_file"]
        try:
            with open(file) as stream:  # noqa: PTH123 - pathlib alone is 2 MB here
                content = json.load(stream)
            content["pids"] = {} if pids is None else {"supervisor": os.getpid(), **pids}
            text = (json.dumps(content, indent=2) + "\n").encode()
            handle = os.open(f"{file}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if os.write(handle, text) < len(text):  # a full disk may take the first half
                    raise OSError("not all of it was written")
            finally:
                os.close(handle)
            os.replace(f"{file}.new", file)  # noqa: PTH105
        except (OSError, ValueError) as problem:
            self._say(f"stack.json could not be written: {problem}")

    def _say(self, text: str) -> None:
        """Into the log, and to whoever stands before a stack in the foreground. A full disk takes no log."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n".encode()
        with suppress(OSError):
            os.write(2, line)
        with suppress(OSError):
            handle = os.open(self.state["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)


def _told_to_stop(number: int, frame: FrameType | None) -> None:
    raise ToldToStop


def _rings(number: int, frame: FrameType | None) -> None:
    """A signal without a handler wakes nobody up."""


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
