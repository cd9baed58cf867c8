"""Clocks that can be set without touching the machine's: wall.c, compiled here, preloaded into real processes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

HOUR_SECONDS = 3600
COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True, slots=True)
class Clock:
    """One wall clock, of all processes that are started with its `environment`. Monotonic clocks stay."""

    library: Path
    file: Path

    def set(self, seconds: float) -> None:
        """So far from the machine's clock from now on: a jump, at this moment, for all of them."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("<q", round(seconds * 1e9)))

    @property
    def ahead_ms(self) -> int:
        return int(struct.unpack("<q", self.file.read_bytes())[0] // 1_000_000)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "WALL_CLOCK": str(self.file)}


class Walls:
    """Makes clocks. Raises OSError where there is no C compiler, or no glibc to compile for."""

    def __init__(self, folder: Path) -> None:
        compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
        if compiler is None:
            raise OSError("no C compiler: apt-get install gcc libc6-dev")
        self._folder, self._library = folder, folder / "wall.so"
        source = Path(__file__).with_name("wall.c")
        command = [
            compiler,
            "-O2",
            "-shared",
            "-fPIC",
            "-o",
            str(self._library),
            str(source),
            "-ldl",
            "-lpthread",
        ]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise OSError(f"the clock does not compile: {made.stderr[-500:]}")

    def clock(self, name: str) -> Clock:
        """It begins as the machine's."""
        file = self._folder / f"{name}.clock"
        file.write_bytes(bytes(8))
        return Clock(self._library, file)
