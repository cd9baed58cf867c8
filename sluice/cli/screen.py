"""Text from elsewhere, fit for a terminal.

Keys of a topic, names of groups and releases, words of somebody's contract: a terminal obeys the control
characters in them (clear the screen, set the title, answer as if the user typed), and some mail them on.
"""

from __future__ import annotations

from typing import IO, Any


class Forgiving:
    """A stream that loses what cannot be written: a log on a full disk, a reader that has gone. A worker that died of
    its log would lose more than lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shown(text: object) -> str:
    """`text` with all that is not printable written as an escape, as `repr` does; line ends stay."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in found)


def line(text: object) -> str:
    """The same on one line: a name cannot add lines that look like ours."""
    return shown(text).replace("\n", "\\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
