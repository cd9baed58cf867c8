"""The targets, and what each may cost. A target's own module is loaded later, under atheris' import hook."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol, cast

CORPUS = Path(__file__).parent / "corpus"


class Module(Protocol):
    """What a target's module has. `mutate` makes another input of one; None leaves all of it to libFuzzer."""

    WORDS: tuple[bytes, ...]
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[tuple[str, bytes]]]
    mutate: Callable[[bytes, Random], bytes] | None


@dataclass(frozen=True, slots=True)
class Target:
    """`packages`: top-level packages whose branches count as coverage. One input of `longest` bytes at most may
    take `seconds` of CPU and `seconds_per_kb` for each KB of it, under the instrumentation, which makes Python
    about five times slower; and `mib` of memory above what was ever used before.
    """

    packages: tuple[str, ...]
    longest: int
    seconds: float
    seconds_per_kb: float
    mib: int

    def allowed(self, size: int) -> float:
        """CPU seconds for an input of `size` bytes."""
        return self.seconds + self.seconds_per_kb * size / 1024


TARGETS = {
    # A datum of a schema with arrays may cost the guard 100,000 values, whatever its length: .3 s instrumented.
    "codec": Target(("schemas",), 4096, 1.5, 0.05, 48),
    "contract": Target(("schemas",), 8192, 0.5, 0.25, 48),
    "mapping": Target(("schemas",), 2048, 0.5, 0.1, 48),
    "release": Target(("trainers",), 16384, 1.0, 0.05, 64),
    # The registry's own promise for the worst schema is 2 s (registry_rules.py), so 10 under instrumentation.
    "http": Target(("sluice", "h11", "avro"), 8192, 10.0, 0.1, 64),
}


def load(name: str) -> Module:
    """The module of a target."""
    return cast(Module, importlib.import_module(f"tests.fuzz.{name}"))


def kept(name: str) -> list[Path]:
    """The files of a target's corpus, in a fixed order."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
