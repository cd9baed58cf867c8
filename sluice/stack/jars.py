"""Apache Kafka's jars: a pinned list of coordinates and SHA-256, fetched once per user and cached.

The list (`jars.lock`) was resolved once; resolving anew takes 7 to 10 s and may find something else.
`jgo.maven` brings the repository's address. A jar is fetched into a staging folder, checked, and only then
renamed into the cache, so that neither a broken download nor a kill leaves a jar that looks whole.
`SLUICE_KAFKA_JARS` names a folder instead.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from schemas.errors import ConfigurationError, FatalError, RetriableError

KAFKA_VERSION = "4.2.2"
THREADS = 8  # 45 MB in 7 s with eight, latency-bound with one

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, bytes done, bytes in all); from several threads, one at a time."""


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock: hex SHA-256, size in bytes, `group:artifact:version`."""

    sha256: str
    size: int
    coordinate: str

    @property
    def name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked() -> list[Jar]:
    """The jars of the lock file, in the order of the class path."""
    lines = (files("sluice.stack") / "jars.lock").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [Jar(sha256, int(size), coordinate) for sha256, size, coordinate in rows]


def cache_folder() -> Path:
    """Where the jars of this version are kept for all stacks of this user."""
    base = os.environ.get("SLUICE_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "sluice" / f"kafka-{KAFKA_VERSION}"


def missing(folder: Path) -> list[Jar]:
    """Those that a start would have to download first."""
    return [jar for jar in locked() if not (folder / jar.name).exists()]


def class_path(progress: Progress = silent) -> list[Path]:
    """All jars, present and checked, in a fixed order.

    Raises ConfigurationError for a named folder without Kafka, FatalError for a checksum that differs,
    RetriableError where a jar is neither cached nor to be had.
    """
    named = os.environ.get("SLUICE_KAFKA_JARS")
    if named:
        return _from_folder(Path(named).expanduser())
    folder = cache_folder()
    fetch(folder, missing(folder), progress)
    check_closed(folder)
    wrong = [jar for jar in locked() if not _matches(folder / jar.name, jar)]
    if wrong:
        for jar in wrong:
            (folder / jar.name).unlink()
        raise FatalError(
            f"{len(wrong)} cached jar(s) in {folder} had a wrong checksum and were deleted: {wrong[0].name}.",
            "Run the command again, it fetches them anew. If it happens twice, check the disk.",
        )
    return [folder / jar.name for jar in locked()]


def check_closed(folder: Path) -> None:
    """Raises ConfigurationError where another user could change jars after they were checked.

    The broker opens them later, and is started again without a new look after a crash.
    """
    state = folder.stat()
    if state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o002:
        raise ConfigurationError(
            f"Others may write to {folder}, where Apache Kafka's jars are cached.",
            f"Delete it and run the command again, or name another folder with SLUICE_CACHE; or chmod o-w {folder}",
        )


def fetch(folder: Path, wanted: list[Jar], progress: Progress = silent) -> None:
    """Download `wanted` into `folder`, eight at a time. Done is counted in bytes of finished jars."""
    if not wanted:
        return
    import logging

    from jgo.maven import MavenContext

    logging.getLogger("jgo").setLevel(logging.ERROR)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    total, done = sum(jar.size for jar in wanted), 0
    progress("fetching Apache Kafka", 0, total)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".staging-") as staging:
        context = MavenContext(repo_cache=Path(staging))

        def one(jar: Jar) -> Jar:
            group, artifact, version = jar.coordinate.split(":")
            try:
                found = context.project(group, artifact).at_version(version).artifact().resolve()
            except Exception as problem:  # requests', jgo's and the disk's own kinds
                raise RetriableError(
                    f"{jar.name} is not cached and could not be fetched ({type(problem).__name__}).",
                    "Check network, proxy and free disk, then run the command again: what has arrived stays. "
                    f"Without a network, copy {folder} from another machine, or set SLUICE_KAFKA_JARS to a "
                    "folder with these jars.",
                ) from None
            _install(Path(found), jar, folder)
            return jar

        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for jar in pool.map(one, wanted):
                    done += jar.size
                    progress("fetching Apache Kafka", done, total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _install(found: Path, jar: Jar, folder: Path) -> None:
    if not _matches(found, jar):
        raise FatalError(
            f"{jar.name} arrived with a checksum other than the pinned one; it was thrown away.",
            "Somebody between here and the package repository changes files, or a proxy cuts them. "
            "Try another network, or set SLUICE_KAFKA_JARS to a folder with the right jars.",
        )
    found.replace(folder / jar.name)


def _matches(file: Path, jar: Jar) -> bool:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == jar.sha256


def _from_folder(folder: Path) -> list[Path]:
    """A named folder's jars: all of them, the pinned ones checked. Kafka itself must be of the pinned minor
    release.
    """
    found = sorted(folder.glob("*.jar")) if folder.is_dir() else []
    minor = KAFKA_VERSION.rpartition(".")[0]
    if not any(file.name.startswith(f"kafka_2.13-{minor}.") for file in found):
        raise ConfigurationError(
            f"SLUICE_KAFKA_JARS names {folder}, which holds no kafka_2.13-{minor}.*.jar.",
            f"Point it to the `libs` folder of an Apache Kafka {KAFKA_VERSION}, or unset it to let Sluice "
            "fetch the jars.",
        )
    pinned = {jar.name: jar for jar in locked()}
    for file in found:
        if file.name in pinned and not _matches(file, pinned[file.name]):
            raise FatalError(
                f"{file} has a checksum other than the pinned one.",
                "Replace it by the published jar, or unset SLUICE_KAFKA_JARS to let Sluice fetch the jars.",
            )
    return found
