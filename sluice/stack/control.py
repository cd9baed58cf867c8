"""What can be done with a stack from outside: look at it, stop it, throw its data away."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import RetriableError
from sluice.stack import disk, ready, runs, security
from sluice.stack.home import Home
from sluice.stack.jars import KAFKA_VERSION
from sluice.stack.supervisor import owner
from streams.kafka.clients import Connection


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a stack. `ready`: broker and registry answered a signed-in request. Sizes in bytes.

    `processes` are the stack's own and the roles that run for this home; `rss` is their sum, in which memory
    that they share counts once for each. `disk_data` counts blocks in use, not the length of sparse files.
    """

    home: str
    ready: bool
    broker_answers: bool
    registry_answers: bool
    bootstrap: str | None
    registry_url: str | None
    cluster_id: str | None
    kafka: str
    processes: tuple[runs.Run, ...]
    rss_bytes: int
    disk_data_bytes: int
    disk_logs_bytes: int
    disk_free_bytes: int
    open_secrets: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def look(home: Home) -> Status:
    """What runs, how large it is, whether it answers. Never starts anything; takes 5 s at most."""
    stack = home.stack()
    processes = [*_own(home, stack), *runs.runs(home.path)]
    broker = registry = False
    if stack.get("bootstrap") and (home.secrets / "admin").exists():
        password = security.password(home, "admin")
        admin = Connection(stack["bootstrap"], "admin", password, registry_url=stack.get("registry_url"))
        broker = ready.broker_answers(admin)
        registry = ready.registry_answers(admin)
    return Status(
        home=str(home.path),
        ready=broker and registry,
        broker_answers=broker,
        registry_answers=registry,
        bootstrap=stack.get("bootstrap"),
        registry_url=stack.get("registry_url"),
        cluster_id=stack.get("cluster_id"),
        kafka=KAFKA_VERSION,
        processes=tuple(processes),
        rss_bytes=sum(found.rss_bytes for found in processes),
        disk_data_bytes=_used(home.data),
        disk_logs_bytes=_used(home.logs),
        disk_free_bytes=disk.free(home.path),
        open_secrets=tuple(str(file) for file in security.check_private(home)),
    )


def stop(home: Home, patience_seconds: float = 60) -> bool:
    """Stop the stack of `home` in order and wait for its end; False where none ran.

    Raises RetriableError where it is still there after the patience, killed and all.
    """
    pid = owner(home)
    if pid is None:
        return False
    for number, patience in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, 10)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        end = time.monotonic() + patience
        while owner(home) == pid:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        else:
            return True
    raise RetriableError(
        f"The supervisor (process {pid}) does not end.", "Look for a disk that does not answer."
    )


def check_idle(home: Home) -> None:
    """Raises RetriableError while a role other than the stack itself runs for this home."""
    living = runs.runs(home.path)
    if living:
        names = ", ".join(f"{run.role} (process {run.pid})" for run in living)
        raise RetriableError(
            f"Still running for {home.path}: {names}; nothing was deleted.",
            f"Stop {'it' if len(living) == 1 else 'them'} first, then run this again.",
        )


def purge(home: Home) -> list[Path]:
    """Delete the data of a stopped stack: topics, logs, settings. Returns what was removed.

    Stays: `secrets`, since others may hold copies; `keys` and `signers`, since noise keys made anew would be
    a second release of the same data. Raises RetriableError while something of this home runs.
    """
    check_idle(home)
    if owner(home) is not None:
        raise RetriableError(f"The stack of {home.path} still runs.", "Stop it first, then run this again.")
    removed = [path for path in (home.data, home.logs, home.config, home.run) if path.exists()]
    for folder in removed:
        shutil.rmtree(folder)
    if home.stack_file.exists():
        home.stack_file.unlink()
        removed.append(home.stack_file)
    return removed


def _own(home: Home, stack: dict[str, Any]) -> list[runs.Run]:
    if owner(home) is None:  # process ids of the past may belong to others today
        return []
    found = []
    for role, pid in stack.get("pids", {}).items():
        memory = runs.rss_bytes(pid)
        if memory is not None:
            found.append(runs.Run(role, pid, "", memory))
    return found


def _used(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_blocks * 512
        except OSError:  # rotated or deleted in between
            continue
    return total
