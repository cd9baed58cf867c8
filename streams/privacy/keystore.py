"""One file per population under `$SLUICE_HOME/keys`: the oldest live epoch and its root.

It only moves forward. What must never be older than the keys lies beside it (`clocks.py`, `versions.py`).

Written 0600 to a temporary name, fsynced, renamed, the folder fsynced: a crash leaves the old file or the
new one. A lock file serialises processes that share the home. Overwritten blocks of a journaling disk or an
SSD are not scrubbed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import KeyStoreError

RESTORE = (
    "Restore the file from your backup of $SLUICE_HOME/keys, or begin a new epoch with a fresh root and "
    "close the old one."
)


class UnwrittenError(KeyStoreError):
    """The old file stands: the disk is full, or not ours."""


@dataclass(frozen=True, slots=True)
class StoredChain:
    """`root` (hex) belongs to epoch `oldest`.

    The population fixes length and anchor for all its contracts.
    """

    population: str
    length_ms: int
    anchor_ms: int
    oldest: int
    root: str = field(repr=False)
    format: int = 1


def path_of(home: Path, population: str) -> Path:
    """A name that says nothing and fits any file system."""
    return beside(home, population, "json")


def beside(home: Path, name: str, suffix: str) -> Path:
    """Another file of the key folder, named like a population's or a contract's."""
    return home / "keys" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.{suffix}"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the population's lock; makes the folder (0700) where it is missing."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read(file: Path) -> StoredChain | None:
    """The chain, or None where there is no file.

    Raises KeyStoreError where it is damaged or others can read it.
    """
    found = load(file)
    if found is None:
        return None
    try:
        chain = StoredChain(**found)
        sound = (
            chain.format == 1
            and len(bytes.fromhex(chain.root)) == 32
            and all(isinstance(n, int) for n in (chain.length_ms, chain.anchor_ms, chain.oldest))
            and chain.length_ms > 0
        )
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise _damaged(file)
    return chain


def write(file: Path, chain: StoredChain) -> None:
    """Replace the chain. Call it under `locked`."""
    store(file, asdict(chain))


def load(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file of the key folder, None where there is no file. Raises KeyStoreError."""
    try:
        with file.open(encoding="utf-8") as handle:
            mode = os.fstat(handle.fileno()).st_mode & 0o777
            text = handle.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise KeyStoreError(f"Cannot read the noise key {file}: {type(problem).__name__}.", RESTORE) from None
    if mode & 0o077:
        raise KeyStoreError(f"Others can read the noise key {file} (mode {mode:o}).", f"chmod 600 {file}")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _damaged(file)
    return found


def store(file: Path, content: dict[str, Any]) -> None:
    """Replace a file atomically and durably. Call it under `locked`."""
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".chain-")  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(content, out)
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        raise UnwrittenError(
            f"Cannot write the noise key {file}: {problem.strerror}.",
            "Free the disk or correct the folder's rights.",
        ) from None


def _damaged(file: Path) -> KeyStoreError:
    return KeyStoreError(f"The noise key {file} is damaged.", RESTORE)
