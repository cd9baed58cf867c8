"""Lines of a file that may grow, be rotated or be truncated, each with the place where it ends."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from producers.sources import Position, Row, SourceChangedError
from schemas.errors import ConfigurationError

CHUNK = 1 << 18
MOST_BYTES = 4 << 20  # in one `take`, so that long lines do not fill the memory
# A broker takes 1,000,000 bytes in a message unless told otherwise; a dead letter has headers too.
LONGEST_LINE = 900_000
TAIL = 256


class Line(NamedTuple):
    """`raw` without its end; `offset` is where the next line begins; `reason` where it cannot be a row."""

    number: int
    offset: int
    raw: bytes
    reason: str = ""


class Lines:
    """Reads whole lines. A last line without a line feed counts in a file at rest; when following it waits.

    A line longer than LONGEST_LINE keeps that many bytes and the reason `line-too-long`; memory stays
    bounded. Guarantee of following: a renamed file is read to its end before the new one; of a truncated
    file, what was written between the last read and the truncation is lost, and a notice says so.
    """

    def __init__(self, path: Path, *, follow: bool) -> None:
        self.path, self.follow = path, follow
        self.generation = 0
        self.notices: list[str] = []
        self.renewed = False  # the last `take` went over to another file: its header comes first
        self._fd = -1
        self._open()

    def _open(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as problem:
            raise ConfigurationError(
                f"The source file {self.path} cannot be opened: {problem.strerror}.",
                "Check its path and its rights.",
            ) from None
        self.close()
        self._fd = descriptor
        self._start(0, 0)
        self._hash, self._hashed = hashlib.sha256(), 0

    def _start(self, number: int, offset: int) -> None:
        self._number, self._read_to = number, offset
        self._buffer, self._skipping, self._idle, self._tail = b"", b"", False, b""

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def take(self, limit: int) -> list[Line]:
        """The next lines, at most `limit`; empty at the end or, when following, while nothing whole comes."""
        self.renewed = False
        if self.follow and self._idle:
            self._look_for_change()
        lines: list[Line] = []
        begin = self._read_to
        while len(lines) < limit and self._read_to - begin < MOST_BYTES:
            end = self._buffer.find(b"\n")
            if end < 0:
                if not self._more():
                    if not self.follow:
                        self._last(lines)
                    break
                continue
            last = end
            count = len(lines) + 1
            while count < limit and (end := self._buffer.find(b"\n", last + 1)) >= 0:
                last, count = end, count + 1
            whole, self._buffer = self._buffer[:last], self._buffer[last + 1 :]
            offset = self._read_to - len(self._buffer) - len(whole) - 1
            for raw in whole.split(b"\n"):
                offset += len(raw) + 1
                lines.append(self._line(raw, offset))
        self._idle = not lines and not self._skipping
        return lines

    def _line(self, raw: bytes, offset: int, reason: str = "") -> Line:
        self._number += 1
        if self._skipping:
            raw, reason, self._skipping = self._skipping, "line-too-long", b""
        elif len(raw) > LONGEST_LINE:
            raw, reason = raw[:LONGEST_LINE], "line-too-long"
        elif raw.endswith(b"\r"):
            raw = raw[:-1]
        return Line(self._number, offset, raw, reason)

    def _more(self) -> bool:
        if len(self._buffer) > LONGEST_LINE:
            self._skipping = self._skipping or self._buffer[:LONGEST_LINE]
            self._buffer = b""
        chunk = os.pread(self._fd, CHUNK, self._read_to)
        self._read_to += len(chunk)
        self._buffer += chunk
        return bool(chunk)

    def _last(self, lines: list[Line]) -> None:
        if self._buffer or self._skipping:
            raw, self._buffer = self._buffer, b""
            lines.append(self._line(raw, self._read_to))
            said = f"{self.path.name} ends without a line feed: its last line was taken as a whole row."
            if said not in self.notices:
                self.notices.append(said)

    # -- following --

    def _look_for_change(self) -> None:
        here = os.fstat(self._fd)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return  # between a rename and the new file
        consumed = self._read_to - len(self._buffer)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            if here.st_size == self._read_to:  # else read the old one's rest first
                self._renew(
                    "was rotated: the old one was read to its end, the new one is read from its start"
                )
        elif here.st_size < self._read_to or not self._same_tail():
            self._renew(
                "was truncated: it is read from its start; rows cut off before they were read are lost"
            )
        elif here.st_size > self._read_to:
            self._tail = b""
        elif not self._tail:
            self._tail = os.pread(self._fd, min(TAIL, consumed), consumed - min(TAIL, consumed))

    def _same_tail(self) -> bool:
        consumed = self._read_to - len(self._buffer)
        return not self._tail or os.pread(self._fd, len(self._tail), consumed - len(self._tail)) == self._tail

    def _renew(self, what: str) -> None:
        torn = (
            f" A last line without an end ({len(self._buffer)} bytes) was left out." if self._buffer else ""
        )
        self.generation += 1
        self._open()
        self.renewed = True
        self.notices.append(f"{self.path.name} {what}.{torn}")

    # -- positions --

    def position(self, row: Row) -> Position:
        """Right behind `row`. Hashes the bytes since the last position, which the page cache still has."""
        return Position(row.lines, row.offset, self._fingerprint(row.offset), self.generation)

    def resume(self, position: Position) -> None:
        if self.size < position.offset:
            raise changed(
                self.path, f"has {self.size:,} bytes, but {position.offset:,} were published already"
            )
        if self._fingerprint(position.offset) != position.fingerprint:
            raise changed(
                self.path, f"differs in its first {position.offset:,} bytes, which were published already"
            )
        self.generation = position.generation
        self._start(position.lines, position.offset)

    def _fingerprint(self, offset: int) -> str:
        while self._hashed < offset:
            chunk = os.pread(self._fd, min(CHUNK, offset - self._hashed), self._hashed)
            if not chunk:
                raise changed(self.path, "became shorter while it was read")
            self._hash.update(chunk)
            self._hashed += len(chunk)
        if self._hashed != offset:
            raise ValueError("positions must be asked for in order")
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def changed(path: Path, how: str) -> SourceChangedError:
    """The error for a file that is not the one a position belongs to."""
    return SourceChangedError(
        f"The source {path} has changed: it {how}.",
        "Put the published file back; or name the new one with --source FILE (a name has its own position); "
        "or use --from-start: rows that raw holds already come twice there, and the second is denied.",
    )
