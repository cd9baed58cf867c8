"""One run of publishing: fill a batch, commit it, and after any doubt begin again behind the stored position.

The order of the lines is the guarantee: a row counts as done only where `_committed` says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from producers import clock
from producers.ahead import Ahead
from producers.batch import Batch, Tally
from producers.encode import encoders
from producers.pace import Pace
from producers.parse import Broken, Event, Parser
from producers.positions import Positions, Progress
from producers.sources import Position, Row, Source, Spec, open_source
from producers.sources.lines import LONGEST_LINE
from producers.transaction import DoubtError, Transactions
from schemas import dlq
from schemas.contract import Contract
from schemas.errors import ConfigurationError
from schemas.partition import partition
from streams.kafka.clients import Connection

FLUSH_SECONDS = 0.1  # the longest that an event waits for its transaction to begin committing
IDLE_SECONDS = 0.05
FIRST_REJECTED = 10


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


class Run:
    """One run. What a recovery must build anew is built in `_attempt`."""

    _source: Source
    _ahead: Ahead
    _replay: clock.ReplayClock | None
    _live: clock.LiveClock

    def __init__(
        self,
        contract: Contract,
        connection: Connection,
        spec: Spec,
        pace: Pace,
        stop: threading.Event,
        now_ms: Callable[[], int],
        progress: Callable[[Seen], None] | None = None,
    ) -> None:
        self._contract, self._spec, self._stop = contract, spec, stop
        self._pace, self._now_ms, self._progress = pace, now_ms, progress
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
        self._size = 0
        self._due: float | None = None
        self._live = clock.LiveClock(clock.grid_ms(contract))
        self._live_done: int | None = None  # its newest record that this run has committed
        self._late_said = False

    def to_the_end(self, from_start: bool) -> Report:
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
            self._live.last = self._live_done
            if self._spec.follow:
                self._replay, self._ahead = None, Ahead(source, parser, depth=0)
            else:
                last = self._done.clock_ms if self._done else None
                self._replay = clock.ReplayClock(self._live.grid, last, self._now_ms())
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
        if self._now_ms() - event.time_ms > self._contract.keep.raw_ms:
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
        self._clock(self._live.tick(self._now_ms()))

    def _is_due(self, event: Event) -> bool:
        """Wait a little for the event's moment. False: not yet; see to stop, clock, flush, and ask again."""
        if self._pace.unlimited:
            return True
        if self._due is None:
            self._due = self._pace.due(self._pace_time(event), time.monotonic())
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
        self._in_doubt, self._size = after, self._source.size
        self._transactions.commit(batch, after)
        self._committed(after)

    def _committed(self, after: Progress | None) -> None:
        tally = self._batch.tally
        self._report.tally.add(tally, FIRST_REJECTED)
        self._batch.clear()
        self._in_doubt, self._live_done = None, self._live.last
        if after is None:
            return
        self._done = after
        if self._progress is not None:
            total = self._report.tally
            at = after.position.offset
            self._progress(Seen(at, max(self._size, at), total.published, total.rejected))
