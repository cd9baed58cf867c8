"""A contract's source into its raw topic; a batch is one transaction of events, clocks, letters, position.

    recover   fence what an earlier process left open, read the committed position, open the source behind it
    fill      parse rows; before an event whose time confirms it, a clock record (clock.py)
    commit    events + clocks + dead letters + new position, together or not at all (transaction.py)
    ... after any doubt: recover

So a run after a crash goes on behind the last committed row: nothing is lost, nothing comes twice for readers
with `read_committed`. With the replay clock the log's content (key, value, headers, order within a partition)
is the one of an undisturbed run. Not guaranteed: that a change before the position of a file is noticed while
it is being followed (at the next start it is), nor that two equal rows of a source are seen as one (they are
two events).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from producers.pace import Pace
from producers.parse import Broken, Parser, wanted
from producers.run import Report, Run, Seen
from producers.sources import Spec, open_source
from schemas.contract import Contract
from schemas.errors import ConfigurationError
from streams.kafka.clients import Connection

__all__ = ["Report", "Seen", "check", "publish", "source_spec", "wall_ms"]

TRIED, ENOUGH = 100, 20
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def source_spec(contract: Contract, file: Path | None = None, follow: bool | None = None) -> Spec:
    """What to open: the contract's source, or another file, whose suffix tells its kind."""
    source = contract.source
    path = file.expanduser().absolute() if file is not None else source.path
    return Spec(
        kind=KINDS.get(path.suffix.lower(), source.kind) if file is not None else source.kind,
        path=path,
        columns=wanted(contract),
        follow=source.follow if follow is None else follow,
        delimiter=source.delimiter,
        encoding=source.encoding,
    )


def check(contract: Contract, spec: Spec) -> None:
    """Says what is wrong with the source before any connection is made: ConfigurationError.

    A file of which none of the first TRIED rows can be read does not fit its contract: its rows would all
    become dead letters, and the position would move past them.
    """
    opened = open_source(spec)
    try:
        parser = Parser(contract, opened)
        tried = [parser.parse(row) for row in opened.read(TRIED)]
    finally:
        opened.close()
    broken = [item for item in tried if isinstance(item, Broken)]
    if len(broken) == len(tried) >= ENOUGH:
        field = f", field {broken[0].field!r}" if broken[0].field else ""
        raise ConfigurationError(
            f"None of the first {len(tried)} rows of {spec.path} can be read: {broken[0].reason}{field}.",
            "Correct event.time, the columns or source.delimiter in the contract; nothing was published.",
        )


def publish(
    contract: Contract,
    connection: Connection,
    *,
    source: Path | None = None,
    rate: float | None = None,
    speed: float | None = None,
    follow: bool | None = None,
    from_start: bool = False,
    progress: Callable[[Seen], None] | None = None,
    stop: threading.Event | None = None,
    now_ms: Callable[[], int] = wall_ms,
) -> Report:
    """Publish a source to its end or, when following, until `stop`; what is in the batch is committed then.

    `rate`: events a second. `speed`: times event time; 0 or None: as fast as possible. `from_start` forgets
    the stored position. The source's name, which is the file's, is the key of its position and part of the
    transactional id.

    Raises ConfigurationError (file, column, topic or schema missing), WallError (no right to it),
    SourceChangedError (a FatalError), RetriableError (nobody answers). No message holds a value of the
    source.
    """
    spec = source_spec(contract, source, follow)
    if spec.follow and speed:
        raise ConfigurationError(
            "A replay speed and following exclude each other: a followed source runs with the wall clock.",
            "Leave out --speed, or add --no-follow.",
        )
    check(contract, spec)
    run = Run(contract, connection, spec, Pace(rate, speed), stop or threading.Event(), now_ms, progress)
    return run.to_the_end(from_start)
