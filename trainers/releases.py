"""Kafka's side of a subscriber: manifests and chunks in. Needs the base install only.

Memory counts here, since every app carries one of these: small fetches and small queues.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import FatalError, RetriableError, WallError
from streams.kafka.clients import Connection
from streams.kafka.flow import Flow
from trainers.follower import Chunks, needed
from trainers.manifest import Manifest

BEFORE_MS = 60_000  # a release's chunks are appended at most this long before its manifest
CALL_SECONDS = 10.0
OUTAGE_SECONDS = 3.0  # a shorter one is a reconnect, and nobody need know
DEAD_SECONDS = 10.0  # then it may be the client (streams/kafka/flow.py): a new one finds out
LOOK_SECONDS, ASK_SECONDS = 2.0, 2.0  # between two questions for the end of the log, and for its answer
STRANDED_LOOKS = 5
WINDOW = 64  # offsets looked at first when the newest manifest is searched

log = structlog.get_logger("sluice.subscribe")
QUIET = logging.Logger("librdkafka")  # its lines about reconnects would go to the app's stderr
QUIET.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the manifest topic. `seen`: monotonic seconds. `key` is unverified, but looks like the name of
    a release, or is empty.
    """

    key: str
    value: bytes
    offset: int
    timestamp_ms: int
    seen: float

    @property
    def version(self) -> int:
        """As the key says; 0 where it says nothing."""
        return int(self.key[:8] or 0)


class ReleaseLog:
    """Reads `models.<task>.v1` and `models.<task>.chunks.v1`. For one thread.

    `with` waits up to `timeout_seconds` for the broker and the task, and tells `waiting` why meanwhile. Raises
    WallError where the broker refuses this principal or the task is not open, RetriableError where it does
    not answer.
    """

    def __init__(
        self,
        connection: Connection,
        task: str,
        name: str,
        timeout_seconds: float = 30.0,
        waiting: Callable[[RetriableError], None] = lambda _: None,
    ) -> None:
        self._manifests = TopicPartition(f"models.{task}.v1", 0)
        self._chunks = TopicPartition(f"models.{task}.chunks.v1", 0)
        self._task = task
        self._timeout, self._waiting = timeout_seconds, waiting
        self._principal, self._bootstrap = connection.principal, connection.bootstrap
        self._refused: KafkaError | None = None
        self._failed_at: float | None = None  # since when no connection is known to work; monotonic
        self._settings = connection.settings(
            group_id=f"subscribe.{task}.{name}",
            isolation_level="read_committed",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            fetch_max_bytes=2 << 20,
            max_partition_fetch_bytes=1 << 20,
            queued_max_messages_kbytes=2 << 10,
            queued_min_messages=1000,
            fetch_queue_backoff_ms=20,  # by default a full queue stops fetching for a whole second
            fetch_wait_max_ms=100,  # each change of place waits for the fetch before it
            statistics_interval_ms=0,
        )
        self._settings["error_cb"] = self._error
        self._next_manifest = 0
        self._next_chunk = OFFSET_BEGINNING
        self._following = False
        self._newest_ms: int | None = None  # when the newest manifest came
        self._reached = 0  # how far manifests were read, markers included
        self._ended = False  # an assigned topic was read to its end
        self._flow = Flow[str](STRANDED_LOOKS)
        self._looked = time.monotonic()

    def __enter__(self) -> Self:
        self._consumer = Consumer(self._settings, logger=QUIET)
        try:
            self._open()
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def newest_first(self) -> Iterator[Entry]:
        """The manifests that are there now, newest first; then `poll` begins after them."""
        low, high = self._watermarks()
        self._next_manifest = high
        end, width = high, WINDOW
        while end > low:
            start = max(low, end - width)
            found = self._between(start, end)
            if found and self._newest_ms is None:
                self._newest_ms = found[-1].timestamp_ms
            yield from reversed(found)
            end, width = start, 4 * width

    def gather(
        self, manifest: Manifest, entry: Entry, chunks: Chunks, seconds: float, stopping: threading.Event
    ) -> None:
        """Collects the release's chunks, for at most `seconds`. What is missing then, is missing.

        Raises RetriableError where not even the topic's end came in that time.
        """
        wanted, end = set(needed(manifest)), time.monotonic() + seconds
        self._next_chunk = self._chunks_of(entry.timestamp_ms)
        self._assign(TopicPartition(self._chunks.topic, 0, self._next_chunk))
        while wanted and time.monotonic() < end and not stopping.is_set():
            message = self._poll(0.2)
            key = _text(message.key()) if message else ""
            if message and key in wanted:
                chunks.put(key, message.value() or b"")
                wanted.discard(key)
                if not wanted:
                    self._next_chunk = message.offset() + 1
        if wanted and not self._ended and not stopping.is_set():
            raise self._silent("")

    def _chunks_of(self, manifest_ms: int) -> int:
        """Where the chunks of a manifest begin that came at that time, or earlier."""
        since = TopicPartition(self._chunks.topic, 0, max(0, manifest_ms - BEFORE_MS))
        with self._calling():
            at = self._consumer.offsets_for_times([since], timeout=CALL_SECONDS)[0].offset
        return at if at >= 0 else OFFSET_BEGINNING

    def poll(self, chunks: Chunks, timeout_seconds: float) -> list[Entry]:
        """New manifests, in order; new chunks go to `chunks`. Returns as soon as there is something."""
        if not self._following:
            self._following = True
            self._reached, self._failed_at, self._looked = self._next_manifest, None, time.monotonic()
            if self._next_chunk == OFFSET_BEGINNING and self._newest_ms is not None:
                self._next_chunk = self._chunks_of(self._newest_ms)
            self._assign(
                TopicPartition(self._manifests.topic, 0, self._next_manifest),
                TopicPartition(self._chunks.topic, 0, self._next_chunk),
            )
        message, entries = self._poll(timeout_seconds), list[Entry]()
        while message is not None and len(entries) < 64:
            if message.topic() == self._manifests.topic:
                if message.value() is not None:  # a tombstone says that an old release was cleared away
                    entries.append(_entry(message))
            elif message.value() is not None:
                chunks.put(_text(message.key()), message.value())
            message = self._poll(0)
        return entries

    def done(self, entry: Entry) -> None:
        """Marks a manifest as decided, so that `sluice lag` shows how far this subscriber is."""
        place = TopicPartition(self._manifests.topic, 0, entry.offset + 1)
        try:
            self._consumer.commit(offsets=[place], asynchronous=True)
        except (
            KafkaException
        ) as problem:  # only `sluice lag` looks at it, and the next release brings another
            log.warning("offset not committed", task=self._task, error=problem.args[0].name())

    def silence(self) -> RetriableError | None:
        """Why no news can come now; None while they can, and in the first seconds of an outage. Asks the broker
        once a connection has failed, and when nothing has come for two seconds.

        Raises RetriableError where this log must be opened anew: no answer comes, or there is news that does not.
        """
        now = time.monotonic()
        due = now - self._looked >= LOOK_SECONDS
        if self._failed_at is None and not due:
            return None
        try:
            end = self._consumer.get_watermark_offsets(self._manifests, timeout=ASK_SECONDS)[1]
        except KafkaException as error:
            self._failed_at = self._failed_at or now
            seconds = time.monotonic() - self._failed_at
            if error.args[0].code() in _REFUSED or seconds < OUTAGE_SECONDS:
                return None
            if seconds > DEAD_SECONDS:
                raise self._silent("") from None
            return self._silent("")
        self._failed_at = None
        if due:
            self._looked = now
            if self._flow.look({self._manifests.topic: (self._reached, int(end))}):
                raise RetriableError(
                    f"The Kafka client of task {self._task!r} gets nothing, though there is news.",
                    "It is built anew: wait.",
                )
        return None

    def _open(self) -> None:
        end, wait = time.monotonic() + self._timeout, 0.1
        while True:
            problem: KafkaError | None = None
            try:
                found = self._consumer.list_topics(self._manifests.topic, timeout=min(2.0, self._timeout / 4))
                problem = found.topics[self._manifests.topic].error
                if problem is None:
                    # Known to the client from now on: else its next scan for leaders is a second away.
                    self._consumer.list_topics(self._chunks.topic, timeout=2.0)
                    return
            except KafkaException as error:
                problem = error.args[0]
            self._consumer.poll(0)  # hears what the error callback has to say
            self._raise_if_refused()
            told = self._translated(problem)
            if time.monotonic() > end:
                raise told
            if isinstance(told, RetriableError):
                self._waiting(told)
            time.sleep(wait)
            wait = min(2 * wait, 2.0)

    def _translated(self, problem: KafkaError) -> RetriableError | WallError:
        if problem.code() in _REFUSED:
            return WallError(
                f"Task {self._task!r} is not open on this cluster, or {self._principal!r} may not read it.",
                f"Check the task's name; `sluice train {self._task}` opens it.",
            )
        return self._silent(f" ({problem.name()})")

    def _silent(self, why: str) -> RetriableError:
        return RetriableError(
            f"The broker at {self._bootstrap} does not answer{why}.",
            f"Is the broker at {self._bootstrap} up? Where the stack is, `sluice status` says so.",
        )

    @contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as problem:
            self._raise_if_refused()
            raise self._translated(problem.args[0]) from None

    def _watermarks(self) -> tuple[int, int]:
        with self._calling():
            low, high = self._consumer.get_watermark_offsets(self._manifests, timeout=CALL_SECONDS)
        return int(low), int(high)

    def _between(self, start: int, end: int) -> list[Entry]:
        self._assign(TopicPartition(self._manifests.topic, 0, start))
        entries, at, patience = list[Entry](), start, time.monotonic() + CALL_SECONDS
        while at < end and time.monotonic() < patience:
            message: Any = self._consumer.poll(0.2)
            if message is None:
                continue
            if message.error() is not None:
                self._check(message.error())
                if message.error().code() == KafkaError._PARTITION_EOF:
                    at = max(at, message.offset())
                continue
            at = message.offset() + 1
            if message.value() is not None and message.offset() < end:
                entries.append(_entry(message))
        if at < end:
            raise self._silent("")
        return entries

    def _assign(self, *places: TopicPartition) -> None:
        self._ended = False
        self._consumer.assign(list(places))

    def _poll(self, timeout_seconds: float) -> Any:
        message: Any = self._consumer.poll(timeout_seconds)
        self._raise_if_refused()
        if message is None:
            return None
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            self._failed_at, self._looked = None, time.monotonic()
            if message.topic() == self._manifests.topic:
                self._reached = message.offset() + (error is None)
            self._ended = self._ended or error is not None
        if error is None:
            return message
        self._check(error)
        return None

    def _check(self, error: KafkaError) -> None:
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._translated(error)
        if error.fatal():
            raise FatalError(f"The Kafka client failed: {error.name()}.", "Start the program again.")

    def _error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._refused = error
        elif error.code() in _CONNECTION and self._failed_at is None:
            self._failed_at = time.monotonic()

    def _raise_if_refused(self) -> None:
        if self._refused is not None:
            raise WallError(
                f"The broker refused the name or password of {self._principal!r}.",
                "Set SLUICE_HOME to the stack's folder, or SLUICE_PASSWORD_FILE.",
            )


_REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)
_CONNECTION = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)


def _entry(message: Any) -> Entry:
    key = _text(message.key())
    return Entry(
        key if re.fullmatch(r"[0-9]{8}-[0-9a-f]{12}", key) else "",
        message.value(),
        message.offset(),
        message.timestamp()[1],
        time.monotonic(),
    )


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "replace")
