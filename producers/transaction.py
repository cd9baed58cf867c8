"""One producer's transactions: events, clocks, dead letters and the source's position commit together.

1  replace the producer if anything disturbed it since the last commit
2  begin; produce everything, the position last
3  flush: nothing may remain; if anything disturbed the producer by now, give up
4  commit, retried until the transaction's timeout
5  after any doubt: fence (a new producer with the same id), then the stored position says what became of it
"""

from __future__ import annotations

import threading
import time

import structlog
from confluent_kafka import KafkaError, KafkaException

from producers.batch import Batch
from producers.positions import Positions, Progress
from schemas.errors import FatalError, RetriableError
from streams.kafka.clients import Connection
from streams.kafka.producer import DisturbedError, Recyclable
from streams.kafka.transaction import Tuning
from streams.kafka.watchdog import Watchdog

log = structlog.get_logger("sluice.publish")
FAILURES = 8  # in a row, with no commit between them
GIVE_WAY_SECONDS = 3.0
FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class DoubtError(Exception):
    """The transaction failed, or nobody knows: `decide`, then begin behind the position that is stored."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(str(problem))
        self.problem = problem

    @property
    def fenced(self) -> bool:
        """A later producer with this id took over, or the broker ended a transaction that took too long."""
        error = self.problem.args[0] if isinstance(self.problem, KafkaException) else None
        return error is not None and error.code() in FENCED


class Transactions:
    """`transactional.id` is `publish.<contract>.<source>`: a later process of this source fences this one."""

    producer: type[Recyclable] = Recyclable  # a test's dies on purpose

    def __init__(
        self, connection: Connection, contract: str, name: str, positions: Positions, stop: threading.Event
    ) -> None:
        self._name, self._positions = name, positions
        self._watchdog = Watchdog()
        tuning = Tuning()
        self._seconds = tuning.transaction_timeout_ms / 1000
        self._producer = self.producer(connection, f"publish.{contract}.{name}", stop, self._watchdog, tuning)
        self._stop = stop
        self._failures = 0

    def open(self) -> Progress | None:
        """Fences an earlier process, then reads what is committed for this source."""
        self._watchdog.start()
        self._producer.recycle()
        return self._positions.read(self._name)

    def commit(self, batch: Batch, after: Progress | None) -> None:
        """Commits the batch with `after` as the source's position. Raises DoubtError, or WallError."""
        producer, began = self._producer, time.monotonic()
        try:
            if producer.disturbed():
                producer.recycle()
                began = time.monotonic()
            producer.begin()
            for output in batch.outputs(self._name, after.encode() if after else None):
                producer.produce(output)
            producer.flush()
            if producer.disturbed():
                raise DisturbedError("the connection was disturbed within a transaction")
            producer.commit()
        except (KafkaException, DisturbedError, BufferError) as problem:
            self._failures += 1
            batch.fit.took(batch.rows, (time.monotonic() - began) / self._seconds, False)
            log.warning("transaction in doubt", why=str(problem))
            raise DoubtError(problem) from None
        self._failures = 0
        batch.fit.took(batch.rows, (time.monotonic() - began) / self._seconds, True)

    def decide(self, doubt: DoubtError, before: Progress | None, in_doubt: Progress | None) -> bool:
        """Whether the transaction in doubt was committed: the stored position is then the one it carried.

        A fenced producer gives the later one time to move the position before it fences in turn.
        Raises FatalError where another process of this source has moved the position, or where nothing
        succeeds.
        """
        if self._failures >= FAILURES:
            raise FatalError(
                f"{self._failures} transactions in a row were not committed.",
                "See the broker's log, and that no other publisher of this source runs; then run it again.",
            )
        if doubt.fenced:
            self._stop.wait(GIVE_WAY_SECONDS)
            self._was(before, in_doubt)
        self._producer.give_up(doubt.problem)
        return self._was(before, in_doubt)

    def _was(self, before: Progress | None, in_doubt: Progress | None) -> bool:
        stored = self._stored()
        if in_doubt is not None and stored == in_doubt:
            return True
        if stored != before:
            raise FatalError(
                f"Another `sluice publish` of {self._name} runs: the position moved on without this one.",
                "Run one publisher for each source.",
            )
        return False

    def _stored(self) -> Progress | None:
        while True:
            try:
                return self._positions.read(self._name)
            except RetriableError:
                self._failures += 1
                if self._failures >= FAILURES:
                    raise
                self._stop.wait(0.5)

    def close(self) -> None:
        self._producer.close()
        self._watchdog.stop()
