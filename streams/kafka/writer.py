"""The producer thread, and the transaction step by step.

    1  drop work of an older epoch, or that does not start where the last transaction ended
    2  replace the producer if anything disturbed it since the last commit
    3  begin; produce outputs and dead letters, then changes and positions
    4  flush: nothing may remain
    5  if anything disturbed the producer by now: give up (recycle, reset)
    6  send the source offsets, once
    7  commit, retried until the transaction's timeout
    8  apply the state changes, move the positions

Step 4 before 6: offsets of a transaction whose records are not all on the broker would lose them. Steps 2 and
5: a delayed end-of-transaction that librdkafka sends again can commit the *next* transaction; a new producer
fences it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import FatalError
from streams.kafka.clients import Connection
from streams.kafka.producer import DisturbedError, Recyclable
from streams.kafka.records import Output, Records, Result, Source
from streams.kafka.session import Session, Tuning
from streams.kafka.state import Position
from streams.kafka.watchdog import Watchdog

log = structlog.get_logger("sluice.writer")

REFUSALS = 3  # in a row
NEVER = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}


@dataclass(frozen=True, slots=True)
class Work:
    """Records with their results; `done` says whether they were committed."""

    parts: tuple[tuple[Records, Result], ...]
    done: Future[bool] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(len(records) for records, _ in self.parts)


class Writer(threading.Thread):
    """Commits work in the order it was put; what waits goes into one transaction."""

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        changelog: Callable[[Source], Source] | None,
        session: Session,
        watchdog: Watchdog,
        tuning: Tuning,
    ) -> None:
        super().__init__(name="writer", daemon=True)
        self.reset: Callable[[str], None]
        self.cluster = ""
        self._producer = Recyclable(connection, transactional_id, session.stopping, watchdog, tuning)
        self._seconds = tuning.transaction_timeout_ms / 1000
        self._changelog = changelog
        self._session = session
        self._open: Future[str] = Future()
        self._work: queue.Queue[Work] = queue.Queue()
        self._over = False
        self._door = threading.Lock()  # nothing gets into the queue behind the last look at it
        self._refused = 0

    def opened(self) -> str:
        """Waits until an earlier process of this slot is fenced; the cluster's id."""
        return self._open.result()

    def put(self, work: Work) -> Future[bool]:
        with self._door:
            if not self._over:
                self._work.put(work)
                return work.done
        work.done.set_result(False)
        return work.done

    def run(self) -> None:
        try:
            self._producer.recycle()
            self._open.set_result(self._producer.cluster())
        except BaseException as error:
            self._open.set_exception(error)
            return
        try:
            while True:
                waiting = self._take()
                if waiting:
                    self._commit_all(waiting)
                elif self._session.stopping.is_set():
                    break
        except BaseException as error:
            self._session.fail(error)
        finally:
            with self._door:
                self._over = True
            while not self._work.empty():
                self._work.get_nowait().done.set_result(False)
            self._producer.close()

    def _take(self) -> list[Work]:
        try:
            waiting = [self._work.get(timeout=0.2)]
        except queue.Empty:
            return []
        count, most = waiting[0].size, self._session.fit.most
        while not self._work.empty() and (most is None or count < most):
            waiting.append(self._work.get_nowait())
            count += waiting[-1].size
        return waiting

    def _commit_all(self, waiting: list[Work]) -> None:
        done = False
        current: list[Work] = []
        try:
            with self._session.quiet:
                current = self._current(waiting)  # 1
                if current:
                    done = self._transact([part for work in current for part in work.parts])
        finally:
            for work in waiting:
                work.done.set_result(done and work in current)

    def _current(self, waiting: list[Work]) -> list[Work]:
        at = dict(self._session.positions)
        current = []
        for work in waiting:
            if any(records.epoch != self._session.epoch for records, _ in work.parts):
                continue
            for records, _ in work.parts:
                if at.get(records.source) != records.start:
                    self.reset(f"{records} does not follow {at.get(records.source)}")
                    return []
                at[records.source] = records.next
            current.append(work)
        return current

    def _transact(self, parts: list[tuple[Records, Result]]) -> bool:
        producer, count, began = self._producer, sum(len(records) for records, _ in parts), time.monotonic()
        try:
            if producer.disturbed():  # 2
                producer.recycle()
                began = time.monotonic()  # to wait for a broker is not to be slow
            producer.begin()  # 3
            for _, result in parts:
                for output in result.outputs:
                    producer.produce(output)
            if self._changelog is not None:
                for output in self._changes(parts):
                    producer.produce(output)
            producer.flush()  # 4
            if producer.disturbed():  # 5
                raise DisturbedError("the connection was disturbed within a transaction")
            ends = {records.source: records.next for records, _ in parts}
            producer.send_offsets(  # 6
                [TopicPartition(*source, end) for source, end in ends.items()], parts[-1][0].group_metadata
            )
            producer.commit()  # 7
        except (KafkaException, DisturbedError, BufferError) as problem:
            self._judge(problem, parts)
            self._session.fit.took(count, (time.monotonic() - began) / self._seconds, False)
            producer.give_up(problem)
            self.reset(f"transaction failed: {problem}")
            return False
        self._refused = 0
        self._session.fit.took(count, (time.monotonic() - began) / self._seconds, True)
        for records, result in parts:  # 8
            if result.apply is not None:
                result.apply()
            self._session.moved(records)
        return True

    def _judge(self, problem: Exception, parts: list[tuple[Records, Result]]) -> None:
        """Raises FatalError for what the broker will never take: trying it for ever looks like work."""
        error = problem.args[0] if isinstance(problem, KafkaException) else None
        if error is None or error.code() not in NEVER:
            return
        self._refused += 1
        if self._refused >= REFUSALS:
            raise FatalError(
                f"The broker does not take what {parts[0][0].source} became behind offset "
                f"{parts[0][0].start}: {error.str()}",
                "Compare max.message.bytes of the topics, and that the contract's or task's topics are all open.",
            ) from None

    def _changes(self, parts: list[tuple[Records, Result]]) -> list[Output]:
        assert self._changelog is not None
        targets: dict[Source, list[tuple[bytes, bytes | None]]] = {}
        ends: dict[Source, Position] = {}
        for records, result in parts:
            targets.setdefault(self._changelog(records.source), []).extend(result.changes)
            ends[records.source] = Position(records.source, records.next, self.cluster)
        for source, position in ends.items():
            targets[self._changelog(source)].append(position.encode())
        return [
            Output(
                target.topic, target.partition, [value for _, value in changes], [key for key, _ in changes]
            )
            for target, changes in targets.items()
        ]
