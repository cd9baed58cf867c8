"""One Apache Kafka node in KRaft mode as a child of this process, secured from its first start.

Ready takes 3 to 5 s. Nothing listens without authentication; see security.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from schemas.errors import ConfigurationError, FatalError, RetriableError
from sluice.stack import jars, java, leash, security
from sluice.stack.home import Home, write_private

HEAP_MB = 256
LEAST_FREE_BYTES = 256 << 20

# Each for a reason: one node (replication 1, one partition for internal topics), quick fencing and take-over (design
# section 3 rule 10), no topic behind anybody's back, and little memory (the cleaner's buffer is 128 MiB by default).
NODE_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

LOG4J = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {folder}/broker.log
appender.file.filePattern = {folder}/broker.%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 4
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
"""


class Broker:
    """The broker process of one home. `start` returns once the process runs; `sluice.stack.ready` tells when it answers.

    Not thread-safe. The child dies with the *thread* that started it (see leash.py): start it from the main thread.
    """

    def __init__(self, home: Home, port: int = 0) -> None:
        """`port` is the client listener's; 0 takes a free one. The two internal listeners always take free ones."""
        self.home = home
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.cluster_id = ""

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, progress: jars.Progress = jars.silent) -> None:
        """Fetch what is missing, format an empty data folder, start the process.

        Raises ConfigurationError, FatalError or RetriableError, each with the remedy.
        """
        self.home.create()
        security.ensure_passwords(self.home)
        _check_disk(self.home.path)
        runtime, class_path = java.find(), jars.class_path(progress)
        ports = self._ports()
        self._configure(ports)
        self._format(runtime, class_path)
        with (self.home.logs / "broker.out").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid())]
                + self._command(runtime, class_path, "kafka.Kafka", str(self.home.config / "broker.properties")),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )

    def stop(self, patience_seconds: float = 20) -> None:
        """Orderly shutdown; killed after `patience_seconds`, which costs a log recovery at the next start."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _ports(self) -> dict[str, int]:
        if self.port and not port_is_free(self.port):
            raise ConfigurationError(
                f"Port {self.port} is taken by another program.",
                f"Name another with `sluice up --port {self.port + 10}`, or let Sluice choose with --port 0.",
            )
        internal, controller, free = free_ports(3)
        self.port = self.port or free
        return {"CLIENT": self.port, "INTERNAL": internal, "CONTROLLER": controller}

    def _configure(self, ports: dict[str, int]) -> None:
        settings = {
            **NODE_SETTINGS,
            "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
            "log.dirs": str(self.home.data),
            **security.settings(self.home, ports),
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        write_private(self.home.config / "broker.properties", text)
        write_private(self.home.config / "log4j2.properties", LOG4J.format(folder=self.home.logs))

    def _format(self, runtime: java.Java, class_path: list[Path]) -> None:
        """Give an empty data folder its cluster id and first credentials; keep the id of one that has them."""
        meta = self.home.data / "meta.properties"
        if meta.exists():
            self.cluster_id = _cluster_id(meta)
            return
        if any(self.home.data.iterdir()):
            raise FatalError(
                f"{self.home.data} holds data, but its meta.properties is gone: this cannot be resumed.",
                "Restore the folder from a copy, or give it up with `sluice down --purge`.",
            )
        cluster_id = urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16), version=4).bytes).decode().rstrip("=")
        arguments = self.home.config / "format.arguments"
        write_private(arguments, "\n".join(security.scram_arguments(self.home)))
        try:
            run = subprocess.run(  # its output holds salted passwords: never kept
                self._command(runtime, class_path, "kafka.tools.StorageTool", "format")
                + ["-t", cluster_id, "-c", str(self.home.config / "broker.properties"), f"@{arguments}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                timeout=120,
                check=False,
            )
        finally:
            arguments.unlink(missing_ok=True)
        if run.returncode != 0 or not meta.exists():
            shutil.rmtree(self.home.data, ignore_errors=True)
            raise RetriableError(
                f"The data folder {self.home.data} could not be formatted (exit code {run.returncode}).",
                "Check that its disk has room and may be written to, then run the command again.",
            )
        self.cluster_id = cluster_id

    def _command(self, runtime: java.Java, class_path: list[Path], main: str, *arguments: str) -> list[str]:
        options = [
            f"-Xmx{HEAP_MB}m",
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            f"-XX:ErrorFile={self.home.logs}/java-crash.log",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.home.config}/log4j2.properties",
        ]
        if runtime.version >= 24:  # silences warnings about what Kafka's own libraries do
            options += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
        return [str(runtime.executable), *options, "-cp", ":".join(map(str, class_path)), main, *arguments]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody held a moment ago. Somebody else may take one before it is used."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _environment() -> dict[str, str]:
    return {**os.environ, "MALLOC_ARENA_MAX": "2"}


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise RetriableError(
            f"The disk of {folder} has only {free >> 20} MB left; the broker needs {LEAST_FREE_BYTES >> 20}.",
            "Free some room, or set SLUICE_HOME to another disk.",
        )


def _cluster_id(meta: Path) -> str:
    for line in meta.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "cluster.id" and value:
            return value
    raise FatalError(
        f"{meta} names no cluster: the data folder is damaged.",
        "Restore the folder from a copy, or give it up with `sluice down --purge`.",
    )
