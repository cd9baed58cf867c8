"""The one owner of a stack's children: broker and registry start, stop and die with it.

    python -m sluice.stack.supervisor HOME PORT REGISTRY_PORT

is what `sluice up --detach` leaves behind: it says each step and each error as a line of JSON on standard
output, and becomes the keeper (keeper.py) once the stack is ready.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO

from schemas import errors
from schemas.errors import RetriableError, SluiceError
from sluice.stack import children, disk, jars, keeper, ports, provision, ready, security
from sluice.stack.broker import Broker
from sluice.stack.home import Home, write_private
from streams.kafka.clients import Connection

PORT, REGISTRY_PORT = 9092, 8081
READY_SECONDS = 90  # 4 to 6 on a free machine


class AlreadyRunningError(RetriableError):
    """Another supervisor owns this home."""


class Stack:
    """Broker and registry of one home. Use from the main thread only; see leash.py."""

    def __init__(self, home: Home, port: int = 0, registry_port: int = 0) -> None:
        self.home = home
        self.broker = Broker(home, port)
        self.registry_port = registry_port
        self.registry: subprocess.Popen[bytes] | None = None
        self._registry_child: children.Child | None = None
        self._lock: TextIO | None = None

    @property
    def registry_url(self) -> str:
        return f"http://{ports.HOST}:{self.registry_port}"

    def connection(self, role: str) -> Connection:
        """The way of `role` (one of security.ROLES) to this stack."""
        return Connection(
            bootstrap=self.broker.bootstrap,
            principal=role,
            password=security.password(self.home, role),
            registry_url=self.registry_url,
        )

    def start(self, progress: jars.Progress = jars.silent) -> None:
        """Start both and return when both answer. On failure nothing is left running.

        Raises AlreadyRunningError where this home has an owner, else what Broker.start raises.
        """
        self.home.create()
        self._lock = take_lock(self.home)
        try:
            had_topics = any(self.home.data.glob(f"{provision.SCHEMAS_TOPIC}-0*"))
            self.broker.prepare(progress)
            progress("starting the broker", 0, 2)
            self._start_registry()  # beside the broker, for which it waits: both take seconds to load
            self.broker.launch()
            self._write_stack()
            admin = self.connection("admin")
            if not ready.wait_for(lambda: ready.broker_answers(admin), self.broker.lives, READY_SECONDS):
                raise self.broker.why_it_ended()
            if had_topics and provision.SCHEMAS_TOPIC not in provision.topics(admin):
                raise self.broker.forgot_its_topics()
            provision.open_registry(admin)
            progress("starting the registry", 1, 2)
            if not ready.wait_for(lambda: ready.registry_answers(admin), self._registry_lives, READY_SECONDS):
                raise RetriableError(
                    f"The registry did not become ready; {self.home.logs / 'registry.log'} says why.",
                    "Run `sluice up` again.",
                )
            progress("ready", 2, 2)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Orderly: registry, then broker. stack.json stays, without process ids."""
        if self.registry is not None:
            children.end(self.registry, 5)
            self.registry = None
        self.broker.stop()
        if self.home.stack_file.exists():
            self.home.write_stack({**self.home.stack(), "pids": {}})
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def become_keeper(self) -> NoReturn:
        """Turn this process into the small one that stays (keeper.py). Flush files before."""
        found = [(self.broker.child, self.broker.process), (self._registry_child, self.registry)]
        state = {
            "stack_file": str(self.home.stack_file),
            "log": str(self.home.logs / "supervisor.log"),
            "children": [
                {"role": child.role, "pid": process.pid, "command": child.command, "out": str(child.out)}
                for child, process in found
                if child is not None and process is not None
            ],
            "disk": {
                "folder": str(self.home.path),
                "role": "broker",
                "stop_bytes": disk.STOP_BYTES,
                "start_bytes": disk.START_BYTES,
                "warn_bytes": disk.WARN_BYTES,
            },
        }
        file = self.home.run / "children.json"
        write_private(file, json.dumps(state))
        if self._lock is not None:
            os.set_inheritable(self._lock.fileno(), True)
        os.execve(  # the same environment: a child that is started again must get what the first one got
            sys.executable, [sys.executable, "-I", "-S", keeper.__file__, str(file)], children.environment()
        )

    def _start_registry(self) -> None:
        self.registry_port = ports.claim(self.registry_port, "--registry-port")
        words = ["--port", str(self.registry_port), "--home", str(self.home.path)]
        command = children.python("sluice.stack.registry", *words, "--bootstrap", self.broker.bootstrap)
        self._registry_child = children.leashed("registry", command, self.home.logs / "registry.out")
        self.registry = self._registry_child.spawn()

    def _registry_lives(self) -> bool:
        return self.registry is not None and self.registry.poll() is None

    def _write_stack(self) -> None:
        pids = {"supervisor": os.getpid()}
        if self.broker.process is not None:
            pids["broker"] = self.broker.process.pid
        if self.registry is not None:
            pids["registry"] = self.registry.pid
        self.home.write_stack(
            {
                "bootstrap": self.broker.bootstrap,
                "registry_url": self.registry_url,
                "cluster_id": self.broker.cluster_id,
                "pids": pids,
            }
        )


def ports_of(home: Home, port: int | None = None, registry_port: int | None = None) -> tuple[int, int]:
    """The broker's and the registry's port: what was asked for, else what this home had before, else the usual ones."""
    before = home.stack()

    def last(name: str, usual: int) -> int:
        found = str(before.get(name, "")).rpartition(":")[2]
        return int(found) if found.isdigit() else usual

    return (
        last("bootstrap", PORT) if port is None else port,
        last("registry_url", REGISTRY_PORT) if registry_port is None else registry_port,
    )


def start_detached(home: Home, ports: tuple[int, int], progress: jars.Progress = jars.silent) -> None:
    """Start a stack that outlives this process, and return when it is ready. Raises as `Stack.start`."""
    command = children.python("sluice.stack.supervisor", str(home.path), *map(str, ports))
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert child.stdout is not None
    try:
        with child.stdout as lines:
            for line in lines:
                told = json.loads(line)
                if "error" in told:
                    child.wait()
                    raise _error(told)
                progress(told["what"], told["done"], told["total"])
                if told["what"] == "ready":
                    return
    except BaseException:
        child.terminate()
        raise
    raise RetriableError(
        f"The supervisor ended with {child.wait()} before the stack was ready.",
        f"Look into {home.logs}, then run the command again.",
    )


def _error(told: dict[str, Any]) -> SluiceError:
    if told["error"] == AlreadyRunningError.__name__:
        return AlreadyRunningError(told["message"], told["remedy"])
    kind: type[SluiceError] = getattr(errors, told["error"], errors.FatalError)
    return kind(told["message"], told["remedy"])


def take_lock(home: Home) -> TextIO:
    """Become the owner of `home`, for as long as the file stays open. Raises AlreadyRunningError."""
    lock = (home.run / "stack.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        where = home.stack().get("bootstrap", "an address not yet known")
        raise AlreadyRunningError(
            f"The stack of {home.path} is already running at {where}.",
            "Use it as it is, or stop it first with `sluice down`.",
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def owner(home: Home) -> int | None:
    """Process id of the supervisor that owns `home` now; None where there is none."""
    try:
        with (home.run / "stack.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0) or None
    except (FileNotFoundError, ValueError):
        pass
    return None


def main(arguments: list[str]) -> None:
    """Start, tell every step on standard output, then keep. Ends with the error's exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    stack = Stack(Home(Path(arguments[0])), int(arguments[1]), int(arguments[2]))

    def tell(**line: object) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        stack.start(lambda what, done, total: tell(what=what, done=done, total=total))
    except SluiceError as problem:
        tell(error=type(problem).__name__, message=problem.message, remedy=problem.remedy)
        sys.exit(problem.exit_code)
    silence = os.open(os.devnull, os.O_RDWR)  # whoever listened has gone or will go
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    stack.become_keeper()


if __name__ == "__main__":
    main(sys.argv[1:])
