"""README's transcripts as tests: each `$` line is run in one shell, each line below it must come out.

A block is found by the comment `<!-- e2e: NAME -->` before it; blocks of one name are one session. `...` in an
expected line stands for anything, and a line `...` for any lines. A command that ends in `&` goes on in the
background until the session ends; a `pip install` chooses the environment instead of running.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"<!-- e2e: (?P<name>[\w-]+) -->\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)


@dataclass(frozen=True)
class Step:
    """One command with the lines that README shows below it."""

    command: str
    expected: tuple[str, ...]


def blocks(readme: str, name: str) -> list[tuple[str, str]]:
    """(kind, text) of every block of this name, in order."""
    return [(found["kind"], found["text"]) for found in BLOCK.finditer(readme) if found["name"] == name]


def steps(text: str) -> Iterator[Step]:
    command = ""
    expected: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(command, tuple(expected))
            command, expected = line[2:], []
        elif line.startswith("> ") and not expected:
            command += "\n" + line[2:]
        elif line.strip():
            expected.append(line.strip())
    if command:
        yield Step(command, tuple(expected))


def extras(command: str) -> tuple[str, ...]:
    """The extras in `pip install 'sluicegate[share,stack]'`."""
    words = shlex.split(command)
    assert words[:2] == ["pip", "install"], command
    found = re.fullmatch(r"sluicegate(?:\[(.*)\])?", words[2])
    assert found, command
    return tuple(found[1].split(",")) if found[1] else ()


def missing(expected: tuple[str, ...], output: str) -> list[str]:
    """Expected lines that do not come out in this order; blanks count once, and table borders do not."""
    lines = [_plain(line) for line in output.splitlines()]
    absent, at = [], 0
    for line in expected:
        pattern = re.compile(".*".join(re.escape(part) for part in _plain(line).split("...")))
        hits = [i for i, found in enumerate(lines[at:], start=at) if pattern.fullmatch(found)]
        if line == "...":
            continue
        if hits:
            at = hits[0] + 1
        else:
            absent.append(line)
    return absent


def _plain(line: str) -> str:
    return " ".join(line.split())


class Session:
    """One shell in which commands run one after another, as at a terminal."""

    def __init__(self, environment: dict[str, str], cwd: Path) -> None:
        self._out = cwd / ".session.out"
        self._file = self._out.open("w")
        self._shell = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=self._file, stderr=subprocess.STDOUT, text=True,
            cwd=cwd, env=environment, start_new_session=True,
        )  # fmt: skip
        self._count = 0

    def run(self, command: str, timeout_seconds: float) -> tuple[int, str]:
        """Exit code and output of one command."""
        self._count += 1
        mark, before = f"--done-{self._count}-", self._out.stat().st_size
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\necho {mark}$?\n")
        self._shell.stdin.flush()
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            text = self._out.read_bytes()[before:].decode(errors="replace")
            found = re.search(rf"^{mark}(\d+)$", text, re.M)
            if found:
                return int(found[1]), text[: found.start()]
            time.sleep(0.05)
        raise AssertionError(f"{command!r} did not end in {timeout_seconds} s:\n{text}")

    def close(self) -> None:
        """Ends the shell and what it left in the background, by their process group."""
        self._shell.communicate("kill $(jobs -p) 2>/dev/null; wait; exit\n", timeout=60)
        self._file.close()
