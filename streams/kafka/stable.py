"""Looks out for a last stable offset that stands still: a transaction on it that nobody ends.

Readers with `read_committed` get no further than the last stable offset, and nothing tells them why. So this
thread asks for both ends of every partition that a worker reads or writes. A transaction of ours lasts
`transaction.timeout.ms` at most, then the broker ends it; whatever stands for 1.75 times as long hangs, and is
said before twice that time is over. Time in which the broker did not answer, or this process did not run,
does not count: nobody could have ended anything.

The same look tells of a reader that stands although there is something to read (`flow.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import TornError
from streams.kafka.clients import Connection
from streams.kafka.flow import Flow
from streams.kafka.records import Source
from streams.kafka.session import Session, Tuning

log = structlog.get_logger("sluice.stable")
PATIENCE = 1.75  # of the transaction's timeout; with two looks of 1/8 each: seen within twice
LOOKS = 8  # a timeout
STRANDED_LOOKS, STRANDED_SECONDS = 8, 10.0  # at least
ANSWER_SECONDS = 2.0
LEAST_GAP_SECONDS = 2.0  # between two looks, beyond which nobody can say what stood


@dataclass(slots=True)
class Still:
    """One partition whose last stable offset is below its end, since when, and when that was seen last."""

    stable: int
    high: int
    since: float
    last: float

    @property
    def seconds(self) -> float:
        return self.last - self.since


class Stills:
    """Pure: what stands, from looks at `(last stable offset, high watermark)` and a passed-in monotonic time."""

    def __init__(self, patience_seconds: float, gap_seconds: float) -> None:
        self._patience, self._gap = patience_seconds, gap_seconds
        self._known: dict[Source, Still] = {}

    def look(self, now: float, ends: Mapping[Source, tuple[int, int]]) -> dict[Source, Still]:
        """Those among `ends` that have stood for the patience. What was not looked at keeps what is known of it;
        a gap between two looks counts as no time."""
        torn = {}
        for partition, (stable, high) in ends.items():
            known = self._known.get(partition)
            if stable >= high:
                self._known.pop(partition, None)
                continue
            if known is None or known.stable != stable:
                self._known[partition] = Still(stable, high, now, now)
                continue
            if now - known.last > self._gap and known.seconds < self._patience:
                known.since += now - known.last
            known.high, known.last = high, now
            if known.seconds >= self._patience:
                torn[partition] = known
        return torn


class Lookout(threading.Thread):
    """Stops the partitions of this worker that such a transaction concerns, and takes them back when it is over.

    A source partition is concerned by itself, by its changelog, and by every partition that its results went
    to: what it wrote there, nobody could read.
    """

    def __init__(
        self,
        connection: Connection,
        group: Callable[[], Collection[Source]],
        changelog: Callable[[Source], Source] | None,
        session: Session,
        tuning: Tuning,
    ) -> None:
        super().__init__(name="lookout", daemon=True)
        self.halt: Callable[[Source], None]
        self.reset: Callable[[str], None]
        self.fetched: Callable[[], tuple[int, Mapping[Source, int]] | None]
        self.renew: Callable[[int, str], None]
        self._settings: dict[str, Any] = {**connection.settings(client_id="lookout"), "log_level": 0}
        self._group, self._changelog, self._session = group, changelog, session
        seconds = tuning.transaction_timeout_ms / 1000
        self._every = seconds / LOOKS
        self._stills = Stills(PATIENCE * seconds, max(LEAST_GAP_SECONDS, 2 * self._every))
        self._flow = Flow[Source](max(STRANDED_LOOKS, math.ceil(STRANDED_SECONDS / self._every)))
        self._client: AdminClient | None = None

    def run(self) -> None:
        try:
            while not self._session.stopping.wait(self._every):
                watched = self._watched()
                if not watched:
                    continue
                fetched = self.fetched()  # before the ends are asked for: what came in between is no stand
                try:
                    ends = self._ends(watched)
                except (KafkaException, TimeoutError):
                    self._client = None  # after a broker's restart an old one may fail for good
                    continue
                self._judge(watched, self._stills.look(time.monotonic(), ends))
                if fetched is not None:  # else it has no room
                    self._look_at(*fetched, ends)
        except BaseException as error:
            self._session.fail(error)

    def _look_at(
        self, epoch: int, positions: Mapping[Source, int], ends: Mapping[Source, tuple[int, int]]
    ) -> None:
        known = {each: (at, ends[each][0]) for each, at in positions.items() if each in ends}
        if stranded := self._flow.look(known, epoch):
            self.renew(epoch, f"{', '.join(map(str, stranded))} has records, and none of them comes")

    def _watched(self) -> dict[Source, set[Source]]:
        """Each partition to look at, and the sources that it concerns."""
        watched: dict[Source, set[Source]] = {}
        for source in self._group():
            targets = {source, *self._session.outputs.get(source, ())}
            if self._changelog is not None:
                targets.add(self._changelog(source))
            for target in targets:
                watched.setdefault(target, set()).add(source)
        return watched

    def _ends(self, partitions: Collection[Source]) -> dict[Source, tuple[int, int]]:
        """Last stable offset, then high watermark: asked in this order, a move between them is no stand."""
        if self._client is None:
            self._client = AdminClient(self._settings)
        found = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            latest: Any = OffsetSpec
            asked = {TopicPartition(*partition): latest.latest() for partition in partitions}
            answers = self._client.list_offsets(asked, isolation_level=level, request_timeout=ANSWER_SECONDS)
            ends = {}
            for each, answer in answers.items():
                try:
                    end = int(answer.result(2 * ANSWER_SECONDS).offset)
                    if (
                        end < 0
                    ):  # what a client answers, without an error, that still asks a leader that is gone
                        raise TimeoutError
                    ends[Source(each.topic, each.partition)] = end
                except KafkaException as problem:
                    if problem.args[0].retriable() or problem.args[0].code() < 0:
                        raise
            found.append(ends)
        stable, high = found
        return {partition: (stable[partition], high[partition]) for partition in stable.keys() & high.keys()}

    def _judge(self, watched: Mapping[Source, set[Source]], torn: Mapping[Source, Still]) -> None:
        session = self._session
        concerned = {source: partition for partition in torn for source in watched[partition]}
        held = set().union(*watched.values())
        for source in set(session.standing).difference(held):  # another worker's by now
            del session.standing[source]
        over = sorted(set(session.standing).difference(concerned))
        for source, partition in sorted(concerned.items()):
            if source in session.standing:
                continue
            session.standing[source] = error = explain(source, partition, torn[partition])
            log.critical(error.message, remedy=error.remedy, partitions=[list(source)])
            self.halt(source)
        if (error_of_all := session.halted(held)) is not None:
            session.fail(error_of_all)
        elif over:
            for source in over:
                del session.standing[source]
            log.warning("the transaction is over; goes on", partitions=[list(source) for source in over])
            self.reset("a last stable offset moves again")


def explain(source: Source, partition: Source, still: Still) -> TornError:
    """What stands, how long, what that stops, what to do."""
    return TornError(
        f"{source} is stopped: {partition} holds a transaction that nobody ends. Its last stable offset stands at "
        f"{still.stable}, below its end {still.high}, for {still.seconds:.1f} s.",
        "Stop this contract's share workers, then `sluice doctor CONTRACT`: it names the producer, and --repair "
        "aborts what it left open. Nothing is lost.",
    )
