"""One Apache Kafka node in KRaft mode as a child of this process, secured from its first start.

Ready takes 2 to 3 s. Nothing listens without authentication; see security.py.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from schemas.errors import FatalError, RetriableError, SluiceError
from sluice.stack import broker_settings, children, classes, disk, jars, java, ports, security
from sluice.stack.home import Home, write_private

DAMAGE = ("CorruptRecord", "InvalidRecord", "meta.properties", "InconsistentClusterId")
PURGE = "Restore the folder from a copy, or give it up with `sluice down --purge`."


class Broker:
    """The broker process of one home. `start` returns once it runs; `sluice.stack.ready` tells when it
    answers.

    Not thread-safe, and for the main thread only (leash.py).
    """

    def __init__(self, home: Home, port: int = 0) -> None:
        """`port` is the client listener's; 0 takes a free one. The two internal listeners always do."""
        self.home = home
        self.port = port
        self.child: children.Child | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.cluster_id = ""
        self._runtime: java.Java
        self._class_path: list[Path] = []
        self._log_start = 0

    @property
    def bootstrap(self) -> str:
        return f"{ports.HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.home.logs / "broker.log"

    def start(self, progress: jars.Progress = jars.silent) -> None:
        """`prepare` and `launch`."""
        self.prepare(progress)
        self.launch()

    def prepare(self, progress: jars.Progress = jars.silent) -> None:
        """Fetch what is missing, make the passwords, choose the ports: the address is known after this.

        Raises ConfigurationError, FatalError or RetriableError, each with the remedy.
        """
        self.home.create()
        check_disk(self.home.path)
        security.ensure_passwords(self.home)
        self._runtime = java.find()
        self._class_path = jars.class_path(progress)
        self._configure()

    def launch(self) -> None:
        """Format an empty data folder and start the process, as prepared. Raises as `prepare`."""
        self._format()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        known = classes.options(classes.file(self._runtime, self._class_path))
        command = self._java(known, "kafka.Kafka", self._properties)
        self.child = children.leashed("broker", command, self.home.logs / "broker.out")
        self.process = self.child.spawn()

    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, patience_seconds: float = 20) -> None:
        """Orderly shutdown; killed after `patience_seconds`, which costs a log recovery at the next start."""
        if self.process is not None:
            children.end(self.process, patience_seconds)
            self.process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def why_it_ended(self) -> SluiceError:
        """What its log says about an end before it was ready, as an error with a remedy."""
        text = ""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(min(self._log_start, self.log.stat().st_size))
                text = log.read().decode(errors="replace")
        return explain(text + (self.home.logs / "broker.out").read_text(errors="replace"), self.home)

    def forgot_its_topics(self) -> SluiceError:
        """Kafka cuts a damaged log where the damage begins, and starts as if nothing had been there."""
        return FatalError(
            f"The data folder {self.home.data} is damaged: topics lie there that the broker knows nothing of, "
            "since its log of topics and rights was cut.",
            PURGE,
        )

    @property
    def _properties(self) -> str:
        return str(self.home.config / "broker.properties")

    def _configure(self) -> None:
        self.port = ports.claim(self.port, "--port")
        internal, controller = ports.free(2)
        listeners = {"CLIENT": self.port, "INTERNAL": internal, "CONTROLLER": controller}
        own = broker_settings.own(str(self.home.data), controller)
        text = broker_settings.properties(broker_settings.NODE, own, security.settings(self.home, listeners))
        write_private(Path(self._properties), text)
        log4j = broker_settings.LOG4J.format(folder=self.home.logs)
        write_private(self.home.config / "log4j2.properties", log4j)

    def _format(self) -> None:
        """Give an empty data folder its cluster id and first credentials, or take the id of a full one."""
        meta = self.home.data / "meta.properties"
        if meta.exists():
            self.cluster_id = _cluster_id(meta)
            return
        if any(self.home.data.iterdir()):
            raise FatalError(
                f"{self.home.data} holds data, but its meta.properties is gone: this cannot be resumed.",
                PURGE,
            )
        cluster_id = new_cluster_id()
        learnt = classes.file(self._runtime, self._class_path)
        done = False
        if learnt is not None and not learnt.exists():
            done = classes.learn(learnt, lambda options: self._formatted(cluster_id, options))
        if not (done or self._formatted(cluster_id, classes.options(learnt))):
            shutil.rmtree(self.home.data, ignore_errors=True)
            raise RetriableError(
                f"The data folder {self.home.data} could not be formatted.",
                "Check that its disk has room and may be written to, then run the command again.",
            )
        self.cluster_id = cluster_id

    def _formatted(self, cluster_id: str, more: list[str]) -> bool:
        """Whether the storage tool made the data folder, run by Java with `more` options; from an empty one."""
        shutil.rmtree(self.home.data, ignore_errors=True)
        self.home.create()
        arguments = self.home.config / "format.arguments"
        write_private(arguments, "\n".join(security.scram_arguments(self.home)))
        words = ["format", "-t", cluster_id, "-c", self._properties, f"@{arguments}"]
        try:
            run = subprocess.run(  # its output holds salted passwords: never kept
                self._java(more, "kafka.tools.StorageTool", *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=children.environment(),
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        finally:
            arguments.unlink(missing_ok=True)
        return run.returncode == 0 and (self.home.data / "meta.properties").exists()

    def _java(self, more: list[str], main: str, *arguments: str) -> list[str]:
        version, home = self._runtime.version, self.home
        options = broker_settings.java_options(version, str(home.config), str(home.logs))
        class_path = ":".join(map(str, self._class_path))
        return [str(self._runtime.executable), *options, *more, "-cp", class_path, main, *arguments]


def explain(log: str, home: Home) -> SluiceError:
    """The error that a broker's log amounts to. Pure."""
    if "No space left on device" in log:
        return RetriableError(
            f"The disk of {home.data} is full; the broker stopped.",
            "Free some room, then run `sluice up` again: it resumes.",
        )
    if "Address already in use" in log or "BindException" in log:
        return RetriableError(
            "Another program took one of the broker's ports in this moment.",
            "Run `sluice up` again, or name another port with --port.",
        )
    if any(sign in log for sign in DAMAGE):
        return FatalError(
            f"The data folder {home.data} is damaged; {home.logs / 'broker.log'} says where.", PURGE
        )
    if "insufficient memory" in log or "OutOfMemoryError" in log:
        return RetriableError(
            f"Too little memory for the broker, which takes up to {broker_settings.HEAP_MB + 150} MB.",
            "Close other programs, then run `sluice up` again: it resumes.",
        )
    return RetriableError(
        f"The broker ended before it was ready; {home.logs / 'broker.log'} says why.",
        "Run `sluice up` again. If the data folder is damaged: restore it, or `sluice down --purge`.",
    )


def check_disk(folder: Path, least_bytes: int = disk.START_BYTES) -> None:
    """Raises RetriableError where the disk of `folder` has less than `least_bytes` left."""
    free = disk.free(folder)
    if free < least_bytes:
        raise RetriableError(
            f"The disk of {folder} has only {free >> 20} MB left; the broker needs {least_bytes >> 20}.",
            "Free some room, or set SLUICE_HOME to another disk.",
        )


def new_cluster_id() -> str:
    """A random UUID as Kafka writes one: 22 characters of URL-safe base64, the first never a dash."""
    while True:
        random = uuid.UUID(bytes=secrets.token_bytes(16), version=4)
        found = urlsafe_b64encode(random.bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found


def _cluster_id(meta: Path) -> str:
    for line in meta.read_text(errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name == "cluster.id" and value:
            return value
    raise FatalError(f"{meta} names no cluster: the data folder is damaged.", PURGE)
