"""Kafka's classes, loaded and linked, kept in a file beside the jars: .5 s less for the broker's start, and as much
for the formatting of a new home.

Java writes the file at the end of a first run (JEP 514) and reads it at the start of later ones. Its name binds it to
this very Java, machine, options and jars; so does Java, which goes on without a file that does not fit. Its content is
as good as a jar's: it is used only where nobody else may write, and its checksum is verified at each start.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sluice.stack import broker_settings, jars, java

LEAST_JAVA = 25
KEPT = 4  # 40 MB each; environments with a Java each share one cache
OTHERS = 0o022  # group and the rest may write


def file(runtime: java.Java, class_path: Sequence[Path]) -> Path | None:
    """Where the classes lie, or should; None where they are not to be had: a Java that the user named or an old one,
    options of the user's that do not go with it, a cache folder that others may write to or we may not.
    """
    folder = jars.cache_folder()
    given = os.environ.get("JAVA_TOOL_OPTIONS", "") + os.environ.get("JDK_JAVA_OPTIONS", "")
    if not runtime.build or runtime.version < LEAST_JAVA or "-Xshare" in given or "SharedArchive" in given:
        return None
    if not (folder.is_dir() and _closed(folder) and os.access(folder, os.W_OK)):
        return None
    options = broker_settings.java_options(runtime.version, "", "")
    parts = [runtime.build, platform.machine(), *options, *(f"{jar} {_stamp(jar)}" for jar in class_path)]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    found = folder / f"classes-{name}.aot"
    return None if found.exists() and not _closed(found) else found


def options(found: Path | None) -> list[str]:
    """What tells Java to use the file, if it is there. Unverified, a damaged one would crash it."""
    if found is None or not found.exists():
        return []
    return [f"-XX:AOTCache={found}", "-XX:+VerifySharedSpaces"]


def learn(found: Path, run: Callable[[list[str]], bool]) -> bool:
    """Let `run` run Java with options that make it write the file; what `run` says. Kept only if that is True."""
    with tempfile.TemporaryDirectory(dir=found.parent, prefix=".staging-") as staging:
        fresh = Path(staging) / found.name
        if not run([f"-XX:AOTCacheOutput={fresh}"]):
            return False
        if fresh.exists():
            fresh.chmod(0o600)
            fresh.replace(found)
            files = sorted(found.parent.glob("classes-*.aot"), key=lambda each: each.stat().st_mtime)
            for oldest in files[:-KEPT]:  # of a Java or jars that are gone
                oldest.unlink(missing_ok=True)
        return True


def is_cold() -> bool:
    """Whether the next start is a first one: jars to download, or their classes to prepare."""
    named, folder = os.environ.get("SLUICE_KAFKA_JARS"), jars.cache_folder()
    if not named and jars.missing(folder):
        return True
    class_path = sorted(Path(named).glob("*.jar")) if named else [folder / jar.name for jar in jars.locked()]
    found = file(java.find(), class_path)
    return found is not None and not found.exists()


def _closed(path: Path) -> bool:
    state = path.stat()
    return state.st_uid in (0, os.geteuid()) and not state.st_mode & OTHERS


def _stamp(jar: Path) -> str:
    state = jar.stat()
    return f"{state.st_size} {state.st_mtime_ns}"
