"""The consumer thread: alone owns the consumer, counts positions, and hands records over by epoch.

Assignment is eager: at every rebalance the group's whole assignment is given up and taken again. A partition
is fetched only after its restore, from an explicit position (`auto.offset.reset=error`), so nothing is ever
consumed from where librdkafka thinks it should begin.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.errors import ConfigurationError, FatalError, WallError
from streams.kafka.clients import Connection, logger
from streams.kafka.records import Records, Source
from streams.kafka.session import Session, Tuning

log = structlog.get_logger("sluice.reader")

FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
WAIT_FULL_SECONDS = 1.0  # a pause throws the prefetched megabytes away, so wait that long first
WAIT_BUSY_SECONDS = 0.01
WAIT_IDLE_SECONDS = 0.1
DEATHS, DEATHS_SECONDS = 5, 60.0
# A rebalance takes a second or two. Seen on a machine so busy that the controller fenced its broker for three seconds:
# all consumers of a group gave their partitions up, and none ever asked to join again.
AWAY_SECONDS = 20.0


class Reader(threading.Thread):
    """Fetches into `held` until a partition has a batch, and hands over whatever is held when it is asked for: the
    longer the caller is busy, the larger the next batch.

    One partition holds less than twice `batch_records`, and bytes as `batch_bytes` says and one fetch more.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        instance: str,
        revoked: Callable[[Sequence[Source]], None] | None,
        session: Session,
        tuning: Tuning,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self.assigned: Callable[[int, list[Source]], None]
        self._settings = connection.settings(
            group_id=group,
            group_instance_id=instance,
            client_id=instance,
            isolation_level="read_committed",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            enable_partition_eof=True,  # how far it came, markers included
            partition_assignment_strategy="range",
            session_timeout_ms=tuning.session_timeout_ms,
            heartbeat_interval_ms=tuning.heartbeat_ms,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=32 << 20,
            queued_max_messages_kbytes=8 << 10,
            # A batch ahead and no more: 100,000 by default, which leave the cache (.9 CPU s per million, so .55). And
            # look again soon whether there is room: a second by default, in which a full queue runs empty.
            queued_min_messages=tuning.batch_records,
            fetch_queue_backoff_ms=10,
            fetch_wait_max_ms=500,
        )
        self._topics = list(topics)
        self._revoked = revoked
        self._session = session
        self._tuning = tuning
        self._consumer: Consumer
        self._epoch = 0
        self._group: set[Source] = set()  # what the group gave us
        self._next: dict[Source, int] = {}  # restored partitions and the position after what was fetched
        self._start: dict[Source, int] = {}  # ... after what was handed over
        self._ends: dict[Source, int] = {}  # where there was nothing more to fetch
        self._held: dict[Source, list[Any]] = {}
        self._bytes: dict[Source, int] = {}  # of `held`
        self._metadata: Any = None  # of the group; one generation and member as long as nothing is forgotten
        self._full = False  # one partition holds a whole batch
        self._paused = False
        self._news: deque[tuple[str, int, Source | None, int]] = deque()
        self._came = threading.Condition()  # over the tables above; not held while records are fetched
        self._gone = threading.Event()  # what was held was handed over
        self._taken: deque[Records] = deque()
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._away_since: float | None = None  # no assignment since then, not even an empty one
        self._stranded: tuple[int, str] | None = None

    # --- called by other threads

    def next(self, timeout_seconds: float) -> Records | None:
        """See `TransactionalPipe.next`."""
        deadline = time.monotonic() + timeout_seconds
        while not self._session.stopping.is_set():
            while self._taken:
                records = self._taken.popleft()
                if records.epoch == self._session.epoch:
                    return records
            with self._came:
                if not any(self._held.values()):
                    if time.monotonic() >= deadline:
                        return None
                    self._came.wait(max(0.0, min(0.2, deadline - time.monotonic())))
                self._hand_over()
        return None

    @property
    def full(self) -> bool:
        """Whether waiting would not make the next batch larger: it is cut already, or as large as one may be."""
        return self._full or bool(self._taken)

    def ready(self, epoch: int, source: Source, position: int) -> None:
        """The partition's state is restored; its records may come."""
        self._news.append(("ready", epoch, source, position))

    def halt(self, source: Source) -> None:
        """No more records of this partition, which is in `session.standing`; the others go on."""
        self._news.append(("halt", self._session.epoch, source, 0))

    @property
    def group(self) -> frozenset[Source]:
        """What the group gave this worker, restored or not."""
        return frozenset(self._group)

    def fetched(self) -> tuple[int, dict[Source, int]] | None:
        """The epoch, and how far each partition was read that is fetched; None while there is no room."""
        with self._came:
            if self._full or self._paused:
                return None
            return self._epoch, {each: max(at, self._ends.get(each, 0)) for each, at in self._next.items()}

    def renew(self, epoch: int, why: str) -> None:
        """A new consumer, if it is this epoch's still that stands."""
        self._stranded = (epoch, why)

    def reset(self, why: str) -> None:
        """A new epoch at once; all partitions are restored and fetched again from what is committed."""
        log.warning("reset", why=why)
        self._news.append(("reset", self._session.advance(), None, 0))

    # --- the thread

    def run(self) -> None:
        try:
            self._consumer = self._join()
            while not self._session.stopping.is_set():
                self._look_after_itself()
                with self._came:
                    self._hear()
                self._fetch()
        except BaseException as error:
            self._session.fail(error)
        finally:
            if hasattr(self, "_consumer"):
                self._consumer.close()

    def _join(self) -> Consumer:
        consumer = Consumer(self._settings, logger=logger())
        consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        self._away_since = time.monotonic()
        return consumer

    def _look_after_itself(self) -> None:
        """A consumer that no longer asks the group for partitions is thrown away: it would poll in peace for ever."""
        if self._away_since is not None and time.monotonic() - self._away_since > AWAY_SECONDS:
            log.error("no assignment comes; the consumer is built anew", seconds=AWAY_SECONDS)
            self._renew()
            return
        stranded, self._stranded = self._stranded, None
        if stranded is not None and stranded[0] == self._epoch:
            log.error("the consumer stands and is built anew", why=stranded[1])
            self._renew()

    def _rejoin(self, why: str) -> None:
        """A consumer error `_FATAL`: this instance is dead, the next one starts over.

        Raises FatalError when that goes on: two processes of one slot fence each other and do nothing else.
        """
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS and now - self._deaths[0] < DEATHS_SECONDS:
            raise FatalError(
                f"{why}. That was the {DEATHS}th time within a minute: another process uses the same slot, "
                f"{self._settings['group.instance.id']!r}.",
                "Slots are told apart on one machine only: give each worker of a group a --slot of its own.",
            )
        self._renew()

    def _renew(self) -> None:
        self._consumer.close()
        self._forget()
        time.sleep(0.5)
        self._consumer = self._join()

    def _forget(self) -> None:
        with self._came:
            gone, self._group = sorted(self._group), set()
            self._epoch = self._session.advance()
            for table in (self._next, self._start, self._ends, self._held, self._bytes):
                table.clear()
            self._full = self._paused = False
            self._metadata = None
        if gone and self._revoked is not None:
            self._revoked(gone)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._away_since = None
            self._forget()
            self._group = {Source(each.topic, each.partition) for each in partitions}
            consumer.assign([])
            log.info("assigned", partitions=len(partitions), epoch=self._epoch)
            self.assigned(self._epoch, sorted(self._group))
        except BaseException as error:  # a callback must never raise
            self._session.fail(error)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._away_since = time.monotonic()
            self._forget()
            consumer.unassign()
            log.info("revoked", partitions=len(partitions), epoch=self._epoch)
        except BaseException as error:
            self._session.fail(error)

    def _hear(self) -> None:
        """What other threads asked for; only the newest epoch counts."""
        changed = False
        while self._news:
            what, epoch, source, position = self._news.popleft()
            if what == "reset" and epoch == self._session.epoch:
                group = self._group
                self._group = set()
                self._forget()
                self._group = group
                self._consumer.assign([])
                self.assigned(self._epoch, sorted(group))
            elif source is not None and source in self._session.standing:
                changed |= self._next.pop(source, None) is not None
                self._start.pop(source, None)
                self._held.pop(source, None)
                self._bytes.pop(source, None)
                self._full = self._any_full()
            elif what == "ready" and source is not None and epoch == self._epoch == self._session.epoch:
                self._next[source] = position
                self._start.setdefault(source, position)
                changed = True
        if changed:
            partitions = [TopicPartition(*source, position) for source, position in self._next.items()]
            self._consumer.assign(partitions)
            self._consumer.resume(partitions)  # a pause outlives every reassignment, whoever forgot it
            self._paused = False

    def _hand_over(self) -> None:
        """Everything held is taken at once; where transactions must be small, what one may hold of each partition: the
        next one may hold more.
        """
        most = self._session.fit.most
        for source, found in self._held.items():
            if found:
                self._taken.extend(self._cut(source, found[:most], self._metadata))
        rest = {source: found[most:] for source, found in self._held.items()} if most else {}
        self._held = {source: found for source, found in rest.items() if found}
        self._bytes = {source: sum(map(len, found)) for source, found in self._held.items()}
        self._full = self._any_full()
        if not self._full:
            self._gone.set()

    def _cut(self, source: Source, found: list[Any], metadata: Any) -> list[Records]:
        """One piece, or small ones while a record among them is suspected to break its handler."""
        suspect = self._session.suspects.get(source)
        near = suspect is not None and self._start[source] < suspect.end
        size = min(suspect.size, len(found)) if suspect is not None and near else len(found)
        doomed = frozenset(self._session.doomed.get(source, ()))
        parts = []
        for first in range(0, len(found), size):
            piece = found[first : first + size]
            after = piece[-1].offset() + 1
            start, self._start[source] = self._start[source], after
            parts.append(
                Records(
                    source,
                    piece,
                    start=start,
                    next=after,
                    epoch=self._epoch,
                    group_metadata=metadata,
                    doomed=doomed,
                )
            )
        return parts

    def _fetch(self) -> None:
        """What has come. While a whole batch waits to be handed over: nothing, and after a second a pause, under
        which the consumer is asked still."""
        if self._full and not self._paused:
            self._wait_for_room()
            return
        if self._paused and not self._full:
            self._consumer.resume([TopicPartition(*source) for source in self._next])
            self._paused = False
        busy = self._paused or len(self._next) < len(self._group)
        first = self._consumer.poll(WAIT_BUSY_SECONDS if busy else WAIT_IDLE_SECONDS)
        if first is not None:
            self._take([first, *self._consumer.consume(self._tuning.batch_records - 1, 0)])

    def _wait_for_room(self) -> None:
        deadline = time.monotonic() + WAIT_FULL_SECONDS
        self._gone.clear()
        while self._full and not self._news and not self._session.stopping.is_set():
            if self._gone.wait(0.1):
                return
            if time.monotonic() >= deadline:
                self._consumer.pause([TopicPartition(*source) for source in self._next])
                self._paused = True
                return

    def _take(self, messages: list[Any]) -> None:
        """Adds to `held`. Calls per message cost: five of them .5 CPU s per million, so one partition has two."""
        good = [message for message in messages if message.error() is None]
        if len(good) < len(messages):
            for message in messages:
                if message.error() is not None:
                    self._trouble(message)
        if self._metadata is None:
            self._metadata = self._consumer.consumer_group_metadata()
        with self._came:
            if len(self._next) == 1 and len(self._group) == 1:
                self._add(next(iter(self._next)), good)
            elif len(self._topics) == 1:
                for partition, run in groupby(good, key=lambda message: message.partition()):
                    self._add(Source(self._topics[0], partition), list(run))
            else:
                for source, run in groupby(good, key=lambda message: (message.topic(), message.partition())):
                    self._add(Source(*source), list(run))
            self._full = self._any_full()
            self._came.notify()

    def _any_full(self) -> bool:
        return any(
            len(held) >= self._tuning.batch_records or self._bytes[source] >= self._tuning.batch_bytes
            for source, held in self._held.items()
        )

    def _add(self, source: Source, run: list[Any]) -> None:
        """Messages of one partition in log order. Below the expected position: of an older assignment."""
        expected = self._next.get(source)
        if expected is None or not run:
            return
        if run[0].offset() < expected:
            run = [message for message in run if message.offset() >= expected]
            if not run:
                return
        self._held.setdefault(source, []).extend(run)
        self._bytes[source] = self._bytes.get(source, 0) + sum(map(len, run))
        self._next[source] = run[-1].offset() + 1

    def _trouble(self, message: Any) -> None:
        error = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            source = Source(message.topic(), message.partition())
            if source in self._next:
                self._ends[source] = message.offset()
        elif code == KafkaError._FATAL:
            log.error("consumer is dead and is built anew", error=error.str())
            self._rejoin(error.str())
        elif code in FORBIDDEN:
            raise WallError(
                f"The broker refused to let this principal read: {error.str()}",
                "Open the contract or task with the admin's principal, or run as the role it names.",
            )
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self.reset("position out of range")
        elif code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ConfigurationError(
                f"A topic does not exist: {', '.join(self._topics)}.", "Open it first: `sluice publish` does."
            )
        else:
            log.warning("consumer", error=error.name(), retriable=error.retriable())
