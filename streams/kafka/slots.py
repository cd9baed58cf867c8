"""One worker, one slot: a lock file under the home keeps two workers of a machine from using the same
identity.

The slot makes `transactional.id` and `group.instance.id` stable, so that a restarted worker fences its own
dead transaction at once and takes its partitions back without a rebalance.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from schemas.errors import RetriableError


class Slot:
    """Holds `<home>/slots/<name>.<number>.lock` until `release()` or the end of the process.

    With `number` None the first free one of 0..63 is taken. Raises RetriableError where the slot is held.
    """

    def __init__(self, home: Path, name: str, number: int | None = None) -> None:
        folder = home / "slots"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = name
        for candidate in range(64) if number is None else (number,):
            file = os.open(folder / f"{name}.{candidate}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                continue
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
            self.number, self._file = candidate, file
            return
        which = "every slot" if number is None else f"slot {number}"
        raise RetriableError(
            f"Another process on this machine holds {which} of {name!r}.",
            "Stop it, or start this worker with another --slot.",
        )

    @property
    def identity(self) -> str:
        """`transactional.id` and `group.instance.id` of this worker."""
        return f"{self.name}.{self.number}"

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
