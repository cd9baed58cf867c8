"""The one owner of a stack's children: broker and registry start, stop and die with it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from typing import TextIO

from schemas.errors import RetriableError
from sluice.stack import jars, leash, ready, security
from sluice.stack.broker import Broker, free_ports
from sluice.stack.home import Home
from streams.kafka.clients import Connection

READY_SECONDS = 60


class AlreadyRunning(RetriableError):
    """Another supervisor owns this home."""


class Stack:
    """Broker and registry of one home. Use from the main thread only; see leash.py."""

    def __init__(self, home: Home, port: int = 0, registry_port: int = 0) -> None:
        self.home = home
        self.broker = Broker(home, port)
        self.registry_port = registry_port
        self.registry: subprocess.Popen[bytes] | None = None
        self._lock: TextIO | None = None

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.registry_port}"

    def connection(self, role: str) -> Connection:
        """The way of `role` (one of security.ROLES) to this stack."""
        return Connection(
            bootstrap=self.broker.bootstrap,
            principal=role,
            password=security.password(self.home, role),
            registry_url=self.registry_url,
        )

    def start(self, progress: jars.Progress = jars.silent) -> None:
        """Start both and return when both answer. On failure nothing is left running."""
        self.home.create()
        self._take_lock()
        try:
            self.broker.start(progress)
            progress("starting the broker", 0, 2)
            admin = self.connection("admin")
            ready.wait_for(lambda: ready.broker_answers(admin), self._broker_lives, READY_SECONDS)
            progress("starting the registry", 1, 2)
            self._start_registry()
            self._write_stack()
            progress("ready", 2, 2)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Orderly: registry, then broker. stack.json stays, without process ids."""
        if self.registry is not None:
            self.registry.terminate()
            try:
                self.registry.wait(5)
            except subprocess.TimeoutExpired:
                self.registry.kill()
                self.registry.wait()
            self.registry = None
        self.broker.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        lock = (self.home.run / "stack.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            where = self.home.stack().get("bootstrap", "an address not yet known")
            raise AlreadyRunning(
                f"The stack of {self.home.path} is already running at {where}.",
                "Use it as it is, or stop it first with `sluice down`.",
            ) from None
        self._lock = lock

    def _broker_lives(self) -> bool:
        return self.broker.process is not None and self.broker.process.poll() is None

    def _registry_lives(self) -> bool:
        return self.registry is not None and self.registry.poll() is None

    def _start_registry(self) -> None:
        if importlib.util.find_spec("sluice.stack.registry") is None:
            return
        self.registry_port = self.registry_port or free_ports(1)[0]
        self._write_stack()
        command = [sys.executable, "-m", "sluice.stack.registry", "--port", str(self.registry_port)]
        with (self.home.logs / "registry.out").open("wb") as out:
            self.registry = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
                + ["--home", str(self.home.path)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        admin = self.connection("admin")
        ready.wait_for(lambda: ready.registry_answers(admin), self._registry_lives, READY_SECONDS)

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
