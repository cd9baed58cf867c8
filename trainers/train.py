"""The trainer as a process: shared topics in; forecasts, releases and record out, by transactions.

In the order of the lines: take the next shared records; predict, then learn; encode forecasts, releases and
the record; commit them together with the group's offsets. A crash at any point leaves the topics as after the
last commit, and the state comes back from the record alone: forecasts and releases are never doubled and
never lost.

Bit-identical to a run without the crash where the task has one shared partition. With several, the order in
which their batches come is Kafka's, and the state follows it; it is as consistent, but not the same in every
run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import structlog

from schemas.codec import Encoder
from schemas.errors import ConfigurationError, RetriableError
from streams.kafka.clients import Connection, registry
from streams.kafka.records import NOTHING, Output, Records, Result, Source
from streams.kafka.slots import Slot
from streams.kafka.transaction import TransactionalPipe, Tuning
from trainers.checkpoint import Parts, Recorder
from trainers.manifest import avro_source
from trainers.shared import SharedTopic, shared_topic
from trainers.signing import open_signer
from trainers.spec import EXPERTS, Public, TaskSpec
from trainers.trainer import Candidate, Setting, Taken, Trainer

log = structlog.get_logger("sluice.train")

TUNING = Tuning(batch_records=2048)  # of a key's five-minute counts: a week, and about a second of learning
PACE_SECONDS = 1.0  # at most one transaction a second when live: each writes what changed of the record
IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a trainer stands after a commit. `candidates`: those of this commit, with the gate's verdicts."""

    events: int = 0  # learned by this process
    unread: int = 0
    late: int = 0
    version: int = 0
    released: int = 0
    refused: int = 0
    as_of_ms: int | None = None
    transactions: int = 0
    record_bytes: int = 0  # size of the record
    written_bytes: int = 0  # of which this transaction wrote
    busy_seconds: float = 0.0
    candidates: tuple[Candidate, ...] = field(default=())


def schemas(spec: TaskSpec) -> dict[str, dict[str, Any]]:
    """Avro by subject, for the topics that this task writes."""
    forecast = avro_source("model_forecast")
    forecast["sluice"] = {
        "task": spec.task,
        "target": spec.target,
        "step_ms": spec.step_ms,
        "horizon": spec.horizon,
        "levels": list(spec.levels),
        "experts": list(EXPERTS),
    }
    return {
        f"models.{spec.task}.v1-value": avro_source("model_update"),
        f"models.{spec.task}.acks.v1-value": avro_source("model_ack"),
        f"models.{spec.task}.forecasts.v1-value": forecast,
    }


def train(
    spec: TaskSpec,
    connection: Connection,
    *,
    home: Path,
    stopping: threading.Event,
    until_caught_up: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    tamper: Callable[[int, bytes], bytes] | None = None,
    tuning: Tuning = TUNING,
    pace_seconds: float = PACE_SECONDS,
) -> Progress:
    """Train until `stopping`, or until nothing more is there. Blocks; returns where it ended.

    `tamper(candidate's number, graph) -> graph` may worsen a candidate before the gate sees it.

    Raises WallError, TornError, RecordError, ConfigurationError, RetriableError; what was committed stays.
    """
    with Slot(home, f"train.{spec.task}", 0) as slot, registry(connection) as client:
        signer = open_signer(home, spec.task)
        ids = _register(client, schemas(spec))
        topics = {name: SharedTopic(client, name, spec) for name in map(shared_topic, spec.contracts)}
        public = Public.of([topic.first for topic in topics.values()], spec.target)

        def public_of(schema_id: int) -> Any:
            return next(part for topic in topics.values() if (part := topic.public(schema_id)) is not None)

        setting = Setting(
            spec, public, signer, _cluster(connection), ids[f"models.{spec.task}.v1-value"], public_of
        )
        if tamper is not None:
            setting = replace(setting, tamper=tamper)
        forecasts = ids[f"models.{spec.task}.forecasts.v1-value"]
        worker = _Worker(
            setting, topics, Encoder(forecasts, schemas(spec)[f"models.{spec.task}.forecasts.v1-value"])
        )
        record = Source(f"models.{spec.task}.record.v1", 0)
        with TransactionalPipe(
            connection,
            group=f"train.{spec.task}",
            topics=list(topics),
            transactional_id=slot.identity,
            changelog=lambda _: record,
            restore=worker.restore,
            tuning=tuning,
        ) as pipe:
            pace = _Pace(tuning.batch_records, pace_seconds)
            for batch in _batches(pipe, stopping, until_caught_up, pace, connection):
                before = time.monotonic()
                try:
                    work, now = worker.process(batch)
                except _RecordsError as problem:
                    pipe.fail(problem.records, problem.cause)
                    continue
                if pipe.commit(work).result():
                    worker.progress = replace(now, busy_seconds=now.busy_seconds + time.monotonic() - before)
                    progress(worker.progress)
        return worker.progress


class _RecordsError(Exception):
    """These records made the trainer fail."""

    def __init__(self, records: Records, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.records, self.cause = records, cause


class _Worker:
    """The trainer of the current epoch. Built anew from the committed parts whenever the epoch changes."""

    def __init__(self, setting: Setting, topics: dict[str, SharedTopic], encoder: Encoder) -> None:
        self.progress = Progress()
        self._setting = setting
        self._topics = topics
        self._encoder = encoder
        self._epoch = -1
        self._committed: tuple[Parts, Recorder] = ({}, Recorder())

    def restore(self, sources: Sequence[Source], changelog: Iterable[tuple[bytes, bytes | None]]) -> None:
        """On the restore thread: only hands over, as the worker may still be in an older epoch."""
        recorder = Recorder()
        self._committed = (recorder.restore(changelog), recorder)

    def process(self, batch: Sequence[Records]) -> tuple[list[tuple[Records, Result]], Progress]:
        """Learn from records of one epoch; what must be written, and where that leads."""
        if batch[0].epoch != self._epoch:
            parts, recorder = self._committed
            self._trainer, self._recorder = Trainer(self._setting, parts), recorder.copy()
            self._epoch = batch[0].epoch
        taken: list[Taken] = []
        unread = 0
        for records in batch:
            try:
                events, poison = self._topics[records.topic].events(records)
                taken.append(self._trainer.take(events))
            except Exception as problem:
                raise _RecordsError(records, problem) from problem
            unread += poison
        parts = self._trainer.parts()
        changes = self._recorder.changes(parts)
        outputs = [output for each in taken for output in self._outputs(each)]
        last = Result(outputs=outputs, changes=changes)
        work = [(records, NOTHING) for records in batch[:-1]] + [(batch[-1], last)]
        return work, self._told(taken, unread, parts, changes)

    def _outputs(self, taken: Taken) -> Iterator[Output]:
        task = self._setting.spec.task
        yield from self._forecasts(taken)
        for candidate in taken.candidates:
            if candidate.manifest is None or candidate.value is None:
                continue
            gone = [key.encode() for _, keys in candidate.cleared for key in keys]
            chunks = Output(
                f"models.{task}.chunks.v1",
                0,
                [*(piece for _, piece in candidate.chunks), *[None] * len(gone)],
                [*(key.encode() for key, _ in candidate.chunks), *gone],
            )
            old = [name.encode() for name, _ in candidate.cleared]
            manifest = Output(
                f"models.{task}.v1",
                0,
                [candidate.value, *[None] * len(old)],
                [candidate.manifest.release.encode(), *old],
            )
            yield chunks
            yield manifest

    def _forecasts(self, taken: Taken) -> Iterator[Output]:
        """One record for each event that gave a new forecast; a late one gave none."""
        found, spec = taken.forecasts, self._setting.spec
        rows = np.flatnonzero(found.learned)
        if not len(rows):
            return
        keys = [taken.events.keys[row] for row in rows.tolist()]
        clock = pa.timestamp("ms", "UTC")
        columns = {
            "key": pa.array(keys, pa.string()),
            "as_of": pa.array((found.target[rows] - 1) * spec.step_ms, pa.int64()).cast(clock),
            "target": pa.array((found.target[rows] - 1 + spec.horizon) * spec.step_ms, pa.int64()).cast(
                clock
            ),
            "value": pa.array(found.value[rows]),
            "quantiles": _lists(found.quantiles[rows]),
            "experts": _lists(found.experts[rows]),
        }
        values = self._encoder.encode(pa.RecordBatch.from_pydict(columns))
        yield Output(f"models.{spec.task}.forecasts.v1", 0, values, [key.encode() for key in keys])

    def _told(
        self, taken: Sequence[Taken], unread: int, parts: Parts, changes: Sequence[tuple[bytes, bytes | None]]
    ) -> Progress:
        was, line = self.progress, self._trainer.line
        candidates = tuple(candidate for each in taken for candidate in each.candidates)
        released = sum(candidate.verdict.publish for candidate in candidates)
        return Progress(
            events=was.events + sum(len(each.events.keys) for each in taken),
            unread=was.unread + unread,
            late=self._trainer.learner.late,
            version=line.version,
            released=was.released + released,
            refused=was.refused + len(candidates) - released,
            as_of_ms=None if line.as_of is None else line.as_of * self._setting.spec.step_ms,
            transactions=was.transactions + 1,
            record_bytes=sum(map(len, parts.values())),
            written_bytes=sum(len(key) + len(value or b"") for key, value in changes),
            busy_seconds=was.busy_seconds,
            candidates=candidates,
        )


@dataclass(frozen=True, slots=True)
class _Pace:
    """At most one transaction in so many seconds, unless so many records wait."""

    records: int
    seconds: float


def _batches(
    pipe: TransactionalPipe,
    stopping: threading.Event,
    until_caught_up: bool,
    pace: _Pace,
    connection: Connection,
) -> Iterator[list[Records]]:
    """Records of one epoch, collected until the pace allows the next transaction or they are enough."""
    held: list[Records] = []
    began, idle_since = 0.0, time.monotonic()
    while not stopping.is_set():
        wait = max(0.0, began + pace.seconds - time.monotonic()) if held else 0.2
        records = pipe.next(wait)
        if records is None and not held:
            idle = time.monotonic() - idle_since
            if until_caught_up and idle > IDLE_SECONDS and _caught_up(pipe, connection, idle):
                return
            continue
        if held and records is not None and records.epoch != held[0].epoch:
            held = []  # an older epoch: it comes again
        if records is not None:
            held.append(records)
        full = sum(map(len, held)) >= pace.records
        if held and (full or time.monotonic() >= began + pace.seconds):
            began = time.monotonic()
            yield held
            held, idle_since = [], time.monotonic()


def _caught_up(pipe: TransactionalPipe, connection: Connection, idle_seconds: float) -> bool:
    """Whether the committed positions are at the end of every shared partition.

    A position may stand a marker or an aborted record before the end, which only waiting can tell from a slow
    broker.
    """
    from confluent_kafka import Consumer, TopicPartition

    positions = pipe.assigned
    if not positions:
        return False
    probe = Consumer(connection.settings(group_id="unused", isolation_level="read_committed"))
    try:
        ends = {
            source: probe.get_watermark_offsets(TopicPartition(*source), timeout=10, cached=False)[1]
            for source in positions
        }
    finally:
        probe.close()
    behind = max(ends[source] - position for source, position in positions.items())
    return behind <= 1 or idle_seconds > 5 * IDLE_SECONDS


def _lists(array: np.ndarray[Any, Any]) -> pa.Array:
    """float64 [N, M] as N lists."""
    width = array.shape[1]
    ends = pa.array(np.arange(0, array.size + 1, width, dtype=np.int32))
    return pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(array).reshape(-1)))


def _register(client: Any, wanted: dict[str, dict[str, Any]]) -> dict[str, int]:
    import json

    from confluent_kafka.schema_registry import Schema

    try:
        return {
            subject: client.register_schema(subject, Schema(json.dumps(schema), "AVRO"))
            for subject, schema in wanted.items()
        }
    except Exception as problem:
        status = getattr(problem, "http_status_code", None)
        if status is not None and 400 <= status < 500:
            raise ConfigurationError(
                f"The registry refuses the schemas of this task (status {status}).",
                "Open the task as admin first, or give it a new name if its schemas changed.",
            ) from None
        raise RetriableError(
            f"The registry does not answer ({type(problem).__name__}).",
            "Look at `sluice status`, then try again.",
        ) from None


def _cluster(connection: Connection) -> str:
    """The cluster's id: without it an offset in a release would mean nothing."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        found = AdminClient(connection.settings()).list_topics(timeout=30)
    except KafkaException as problem:
        raise RetriableError(
            f"The broker does not answer ({problem.args[0].name()}).",
            "Look at `sluice status`, then try again.",
        ) from None
    return str(found.cluster_id)
