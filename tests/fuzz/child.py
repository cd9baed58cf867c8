"""One target in one process: `python -m tests.fuzz.child TARGET FOLDER [libFuzzer's own options and folders]`.

An exception that leaves the target is kept as a file of FOLDER, the shortest input for each place it came from, and
fuzzing goes on: one run finds many. What ends the process (a crash in native code, a time-out, memory) libFuzzer
writes down itself.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.oracles import Watch
from tests.fuzz.targets import TARGETS, load

ROOT = Path(__file__).parents[2]
MOST = 40  # places; a target with more is broken, and going on would only fill the disk


class Findings:
    """What was found, by the place it came from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}

    def keep(self, problem: BaseException, data: bytes) -> None:
        """Writes input and stack trace, if this place is new or the input shorter than any before."""
        name = place(problem)
        if len(data) >= self._sizes.get(name, 1 << 30):
            return
        if not self._sizes.get(name):
            sys.stderr.write(f"FINDING {name}\n")
        self._sizes[name] = len(data)
        (self._folder / f"finding-{name}").write_bytes(data)
        lines = traceback.format_exception(problem)
        (self._folder / f"finding-{name}.txt").write_text("".join(lines), "utf-8", "backslashreplace")
        if len(self._sizes) > MOST:
            raise problem


def place(problem: BaseException) -> str:
    """The kind of a problem and a hash of the last line of ours on its way: one for all inputs of one defect."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = [f for f in frames if str(ROOT) in f.filename and "site-packages" not in f.filename] or frames
    told = str(problem) if isinstance(problem, AssertionError) else ""
    where = hashlib.sha256(f"{ours[-1].name}:{ours[-1].lineno}{told}".encode()).hexdigest()[:8]
    return f"{type(problem).__name__}-{where}"


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    name, folder, *options = sys.argv[1:]
    target = TARGETS[name]
    sys.dont_write_bytecode = True
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=list(target.packages)):
        module = load(name)
    findings, watch = Findings(Path(folder)), Watch(target)
    for _, data in module.seeds():  # lazy imports and caches are no memory that an input takes
        try:
            module.run(data)
        except BaseException as problem:
            findings.keep(problem, data)

    def one(data: bytes) -> None:
        try:
            watch.run(module.run, data)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # a panic in Rust is no Exception
            findings.keep(problem, data)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        change = getattr(module, "mutate", None)
        if change is not None and rng.random() < 0.5:
            return bytes(change(data, rng)[:most])
        return bytes(atheris.Mutate(data, most))

    atheris.Setup([str(_again(name, Path(folder))), *options], one, custom_mutator=mutated)
    atheris.Fuzz()


def _again(name: str, folder: Path) -> Path:
    """A program that is this one: libFuzzer's merge starts what it believes to be itself, again and again."""
    script = folder / "again"
    command = shlex.join((sys.executable, "-m", "tests.fuzz.child", name, str(folder)))
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return script


if __name__ == "__main__":
    main()
