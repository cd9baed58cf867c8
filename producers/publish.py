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
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from producers import clock
from producers.ahead import Ahead
from producers.batch import Batch, Tally
from producers.encode import encoders
from producers.pace import Pace
from producers.parse import Broken, Event, Parser, wanted
from producers.positions import Positions, Progress
from producers.sources import Position, Row, Source, Spec, open_source
from producers.sources.lines import LONGEST_LINE
from producers.transaction import DoubtError, Transactions
from producers.units import partition
from schemas import dlq
from schemas.contract import Contract
from schemas.errors import ConfigurationError
from streams.kafka.clients import Connection

FLUSH_SECONDS = 0.1  # the longest that an event waits for its transaction to begin committing
IDLE_SECONDS = 0.05
FIRST_REJECTED = 10
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


class Seen(NamedTuple):
    """What a progress bar wants: how far in the source (bytes or rows), and what this run has committed."""

    at: int
    size: int
    published: int
    rejected: int


@dataclass(slots=True)
class Report:
    """What a run did; owner's side only. `resumed_from`: lines (rows) that earlier runs had dealt with."""

    contract: str
    source: str
    topic: str
    resumed_from: int = 0
    tally: Tally = field(default_factory=Tally)
    recovered: int = 0
    notices: list[str] = field(default_factory=list)
    seconds: float = 0.0


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
    """Says what is wrong with the source before any connection is made: ConfigurationError."""
    opened = open_source(spec)
    try:
        Parser(contract, opened)
    finally:
        opened.close()


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
    publisher = _Publisher(contract, connection, spec, stop or threading.Event())
    publisher.pace, publisher.progress, publisher.now_ms = Pace(rate, speed), progress, now_ms
    return publisher.run(from_start)


class _Publisher:
    """One run. What a recovery must build anew is built in `_attempt`."""

    pace: Pace
    progress: Callable[[Seen], None] | None
    now_ms: Callable[[], int]
    _source: Source
    _ahead: Ahead
    _replay: clock.ReplayClock | None
    _live: clock.LiveClock

    def __init__(self, contract: Contract, connection: Connection, spec: Spec, stop: threading.Event) -> None:
        self._contract, self._spec, self._stop = contract, spec, stop
        self._name = spec.path.name
        positions = Positions(connection, contract.topics.source)
        self._partitions = positions.partitions(contract.topics.raw)
        if self._partitions != contract.partitions:
            raise ConfigurationError(
                f"{contract.topics.raw} has {self._partitions} partitions, not {contract.partitions}.",
                "Put the topic's number into the contract: a topic version never changes it.",
            )
        self._encode, self._encode_clock = encoders(contract, connection)
        self._transactions = Transactions(connection, contract.contract, self._name, positions, stop)
        self._batch = Batch(contract.topics, self._partitions)
        self._report = Report(contract.contract, str(spec.path), contract.topics.raw)
        self._done: Progress | None = None  # committed, as far as this run knows
        self._in_doubt: Progress | None = None
        self._due: float | None = None
        self._live = clock.LiveClock(clock.grid_ms(contract))
        self._late_said = False

    def run(self, from_start: bool) -> Report:
        began = time.monotonic()
        try:
            stored = self._transactions.open()
            self._done = None if from_start else stored
            self._report.resumed_from = self._done.position.lines if self._done else 0
            while True:
                try:
                    self._attempt()
                    break
                except DoubtError as doubt:
                    known = stored if self._done is None else self._done
                    if self._transactions.decide(doubt, known, self._in_doubt):
                        self._committed(self._in_doubt)
                    self._report.recovered += 1
        finally:
            self._transactions.close()
            self._report.seconds = time.monotonic() - began
        return self._report

    def _attempt(self) -> None:
        source = self._source = open_source(self._spec)
        try:
            parser = Parser(self._contract, source)
            if self._done is not None:
                source.resume(self._done.position)
            self._batch.clear()
            self._due = None
            self._live.last = None
            if self._spec.follow:
                self._replay, self._ahead = None, Ahead(source, parser, depth=0)
            else:
                last = self._done.clock_ms if self._done else None
                self._replay = clock.ReplayClock(self._live.grid, last)
                self._ahead = Ahead(source, parser)
            self._pump()
        finally:
            self._report.notices.extend(source.notices)
            source.notices.clear()
            source.close()

    # -- fill --

    def _pump(self) -> None:
        batch, ahead, source = self._batch, self._ahead, self._source
        generation = source.generation
        while not self._stop.is_set():
            if self._replay is None:
                self._tick()
            item = ahead.head()
            if source.generation != generation:  # all of the file before is committed: see Source.read
                generation = source.generation
                self._commit(Row(0, 0, 0, None, b""))
            if item is None:
                self._commit(batch.last)
                if not self._spec.follow:
                    return
                self._stop.wait(IDLE_SECONDS)
                continue
            if isinstance(item, Broken):
                self._reject(item)
            elif self._is_due(item):
                self._send(item)
            else:
                continue
            ahead.drop()
            if batch.full or time.monotonic() - batch.began >= FLUSH_SECONDS:
                self._commit(batch.last)
        self._commit(batch.last)

    def _send(self, event: Event) -> None:
        batch = self._batch
        value = self._encode(event.record)
        if len(value) > LONGEST_LINE:
            self._reject(Broken(event.row, "event-too-large", ""))
            return
        if self._replay is not None and self._replay.moves(event.time_ms):
            self._clock(self._replay.before(event.time_ms, self._ahead.following()))
        if self._replay is None and not self._late_said:
            self._say_if_late(event)
        batch.event(event.row, partition(event.hashed, self._partitions), event.key, value)
        for name in event.unreadable:
            batch.tally.unreadable[name] = batch.tally.unreadable.get(name, 0) + 1

    def _say_if_late(self, event: Event) -> None:
        """Old data under the wall clock is denied by the share agent, silently: say it here, once."""
        self._late_said = True
        if self.now_ms() - event.time_ms > self._contract.keep.raw_ms:
            self._report.notices.append(
                "The rows are older than the contract keeps raw data, and a followed source runs with the "
                "wall clock: the share agent will deny them. Replay an old file with --no-follow."
            )

    def _reject(self, broken: Broken) -> None:
        value = self._source.raw(broken.row)[:LONGEST_LINE]
        headers = dlq.headers(self._name, 0, broken.row.number, broken.reason, "source")
        self._batch.letter(broken, value, headers)

    def _clock(self, clock_ms: int | None) -> None:
        if clock_ms is not None:
            self._batch.clock(self._encode_clock({"clock_ms": clock_ms}))

    def _tick(self) -> None:
        """The live clock; before the first event of a run there is always one."""
        self._clock(self._live.tick(self.now_ms()))

    def _is_due(self, event: Event) -> bool:
        """Wait a little for the event's moment. False: not yet; see to stop, clock, flush, and ask again."""
        if self.pace.unlimited:
            return True
        if self._due is None:
            self._due = self.pace.due(self._pace_time(event), time.monotonic())
        now = time.monotonic()
        if self._due <= now:
            self._due = None
            return True
        if self._batch and self._batch.began + FLUSH_SECONDS < self._due:
            self._commit(self._batch.last)
        self._stop.wait(min(IDLE_SECONDS, max(0.0, self._due - time.monotonic())))
        return False

    def _pace_time(self, event: Event) -> int:
        """The event's time, at most a step ahead of the clock: no replay waits for a stray stamp."""
        replay = self._replay
        if replay is None:
            return event.time_ms
        at = replay.next(event.time_ms, self._ahead.following()) or replay.last
        return event.time_ms if at is None else min(event.time_ms, at + replay.grid)

    # -- commit --

    def _commit(self, last: Row | None) -> None:
        """Commit the batch; `last` is the row that the source then stands behind (None: it has not moved)."""
        batch, after = self._batch, None
        if last is not None:
            before = self._done or Progress(Position(0, 0, ""))
            after = Progress(
                self._source.position(last),
                self._replay.last if self._replay is not None else self._live.last,
                before.published + batch.tally.published,
                before.rejected + batch.tally.rejected,
            )
        elif not batch:
            return
        self._in_doubt = after
        self._transactions.commit(batch, after)
        self._committed(after)

    def _committed(self, after: Progress | None) -> None:
        tally = self._batch.tally
        self._report.tally.add(tally, FIRST_REJECTED)
        self._batch.clear()
        self._in_doubt = None
        if after is None:
            return
        self._done = after
        if self.progress is not None:
            total = self._report.tally
            at = after.position.offset
            self.progress(Seen(at, max(self._source.size, at), total.published, total.rejected))
