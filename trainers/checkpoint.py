"""The trainer's record: the one truth about a task, in `models.<task>.record.v1` (compacted).

A record is a few named parts (bytes): the learner's arrays, the champion's graph, the line of releases. Each
part is cut into shards of 16 KiB, one key a shard, and a head names the parts that belong together. Every
transaction of the trainer writes the head and the shards that changed, beside the forecasts, the releases and
the group's offsets; so whatever a reader of committed data finds, it is the state after exactly the offsets
that are committed.

Why in every transaction: a trainer that wrote its record less often would have to learn again what lies
between, in silence, and a second source of truth decides what it may say aloud. One day of five-minute counts
of one key touches a handful of shards. What costs is many small transactions, so train.py makes at most one a
second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

from schemas.errors import FatalError

SHARD_BYTES = 16 << 10
HEAD = b"head"
FORMAT = 1
MOST_SHARDS = 999_999  # as many as six digits tell apart

Parts = dict[str, bytes]
Change = tuple[bytes, bytes | None]


class RecordError(FatalError):
    """The record cannot be read: shards are missing, damaged, or of another format."""


class Recorder:
    """Knows what the topic holds, and so what must be written. For one thread.

    After a transaction that failed, `restore` must be called before `changes` again: `changes` counts on its
    commit.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}  # shard key -> SHA-256

    def copy(self) -> Recorder:
        other = Recorder()
        other._held = dict(self._held)
        return other

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> Parts:
        """The parts of the last committed record, {} where there is none. Raises RecordError."""
        newest: dict[bytes, bytes] = {}
        for key, value in records:
            if value is None:
                newest.pop(key, None)
            else:
                newest[key] = value
        head = newest.pop(HEAD, None)
        self._held = {key: hashlib.sha256(value).digest() for key, value in newest.items()}
        return _assemble(head, newest) if head is not None else {}

    def changes(self, parts: Mapping[str, bytes]) -> list[Change]:
        """What to write so that the topic holds `parts`: changed shards, tombstones, and last the head."""
        now: dict[bytes, bytes] = {}
        changed: list[Change] = []
        for name in sorted(parts):
            for key, shard in _shards(name, parts[name]):
                now[key] = hashlib.sha256(shard).digest()
                if self._held.get(key) != now[key]:
                    changed.append((key, shard))
        changed += [(key, None) for key in sorted(self._held.keys() - now.keys())]
        self._held = now
        return [*changed, (HEAD, _head(parts))]


def _shards(name: str, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    for index, start in enumerate(range(0, len(content), SHARD_BYTES)):
        yield f"{name}/{index:06d}".encode(), content[start : start + SHARD_BYTES]


def _head(parts: Mapping[str, bytes]) -> bytes:
    told = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in parts.items()}
    return json.dumps({"format": FORMAT, "parts": told}, sort_keys=True, separators=(",", ":")).encode()


def _assemble(head: bytes, shards: Mapping[bytes, bytes]) -> Parts:
    keys, parts = sorted(shards), Parts()
    for name, (size, digest) in _told(head).items():
        count = min(-(-size // SHARD_BYTES), MOST_SHARDS)
        first, end = f"{name}/000000".encode(), f"{name}/{count:06d}".encode()
        content = b"".join(shards[key] for key in keys if first <= key < end)
        if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
            raise RecordError(
                f"The trainer's record is damaged: part {name!r} has {len(content)} of {size} bytes.",
                "Start the task under a new name; it learns again from the shared topics.",
            )
        parts[name] = content
    return parts


def _told(head: bytes) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each part, as the head says."""
    try:
        told = json.loads(head)
        version = int(told["format"])
        parts = {str(name): (size, str(digest)) for name, (size, digest) in told["parts"].items()}
        if not all(type(size) is int and size >= 0 for size, _ in parts.values()):
            raise ValueError("size")
        for name in parts:
            name.encode()
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as problem:
        raise RecordError(
            f"The head of the trainer's record is damaged ({type(problem).__name__}).",
            "Start the task under a new name; it learns again from the shared topics.",
        ) from None
    if version != FORMAT:
        raise RecordError(
            f"The trainer's record has format {version}, this version reads {FORMAT}.",
            "Run the version of Sluice that wrote it, or start the task under a new name.",
        )
    return parts
