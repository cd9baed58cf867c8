"""Which release is in use: the decisions of a subscriber, without Kafka.

    consider(value) -> Manifest    is it readable, from the pinned signer, of this task, and newer?
    take(manifest, chunks)         are the files whole, and does the graph run? then it is in use

Both raise RefusedError and leave the model in use as it is. The swap is one assignment: a forecast runs on
the old model or on the new one, never on parts of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainers.manifest import (
    CHUNK_BYTES,
    FILE_LIMIT,
    NEEDED,
    File,
    Manifest,
    RefusedError,
    assemble,
    chunk_key,
    signer_of,
    unseal,
)
from trainers.pins import Pin
from trainers.serving import Model, load

ENTRY_BYTES = 256  # what a chunk costs beside its content: its key, and places in tables
# Of chunks that wait: with less, a large release's push each other out.
STORE_LIMIT = FILE_LIMIT + (FILE_LIMIT // CHUNK_BYTES + len(NEEDED)) * ENTRY_BYTES
_CHUNK = re.compile(rf"[0-9]{{8}}-[0-9a-f]{{12}}/({'|'.join(map(re.escape, NEEDED))})/[0-9]{{4}}")


@dataclass(frozen=True, slots=True)
class Update:
    """What happened to one release. `reason` is empty when it was applied, else `code: detail`."""

    release: str
    version: int
    applied: bool
    reason: str = ""


class Follower:
    """The model in use and the pin. One thread calls `consider` and `take`; any may read `model`."""

    def __init__(
        self,
        task: str,
        pin: Pin,
        lookup: Callable[[int], Any] | None = None,
        loader: Callable[[Manifest, Mapping[str, bytes]], Model] = load,
    ) -> None:
        self.task = task
        self.pin = pin
        self.model: Model | None = None
        self._lookup = lookup
        self._loader = loader

    def consider(self, value: bytes) -> Manifest:
        """The manifest, verified; nothing of its files has been looked at. Raises RefusedError."""
        public = signer_of(value) if self.pin.public is None else self.pin.public
        manifest = unseal(value, public, self._lookup)
        if manifest.task != self.task:
            raise RefusedError("wrong-task", f"a release of task {manifest.task!r}")
        self.pin.require_acceptable(manifest, starting=self.model is None)
        if sum(needed(manifest).values()) > FILE_LIMIT:
            raise RefusedError("manifest-unreadable", "files too large")
        return manifest

    def take(self, manifest: Manifest, chunks: Mapping[str, bytes]) -> Model:
        """Puts the release in use; `chunks` holds all of `needed(manifest)`. Raises RefusedError."""
        files = {name: _file(manifest, manifest.file(name), chunks) for name in NEEDED}
        model = self._loader(manifest, files)
        self.pin = self.pin.trust(manifest.public_key).applied(manifest)
        self.model = model
        return model


def needed(manifest: Manifest) -> dict[str, int]:
    """Keys of the chunks that a subscriber needs, each with the most bytes it has. Raises RefusedError."""
    files = [manifest.file(name) for name in NEEDED]
    return {
        chunk_key(manifest.release, file.name, index): min(file.size, 512 << 10)
        for file in files
        for index in range(len(file.chunks))
    }


def _file(manifest: Manifest, file: File, chunks: Mapping[str, bytes]) -> bytes:
    keys = [chunk_key(manifest.release, file.name, index) for index in range(len(file.chunks))]
    missing = [key for key in keys if key not in chunks]
    if missing:
        raise RefusedError("chunk-missing", f"{file.name}: {len(missing)} of {len(keys)}")
    return assemble(file, (chunks[key] for key in keys))


class Chunks:
    """Chunks that came and are not yet used, oldest first; the oldest go when there are more than 256 MiB."""

    def __init__(self, limit: int = STORE_LIMIT) -> None:
        self._held: dict[str, bytes] = {}
        self._bytes = 0
        self._limit = limit

    def put(self, key: str, value: bytes) -> None:
        """Keeps what a subscriber needs; the first chunk of a key counts, nobody replaces it later.

        Whoever may write to the topic may write any key: a million empty chunks under long names cost memory too.
        """
        if key in self._held or len(value) > CHUNK_BYTES or not _CHUNK.fullmatch(key):
            return
        self._held[key] = value
        self._bytes += len(value) + ENTRY_BYTES
        while self._bytes > self._limit:
            self._drop(next(iter(self._held)))

    def has(self, manifest: Manifest) -> bool:
        return all(key in self._held for key in needed(manifest))

    def view(self) -> Mapping[str, bytes]:
        return self._held

    def drop_to(self, version: int) -> None:
        """Forget the chunks of releases up to this version."""
        border = f"{version:08d}-~"
        for key in [key for key in self._held if key < border]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._held.pop(key)) + ENTRY_BYTES
