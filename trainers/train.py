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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.codec import Encoder
from schemas.errors import ConfigurationError, RetriableError
from streams.kafka.clients import Connection, registry
from streams.kafka.records import Source
from streams.kafka.slots import Slot
from streams.kafka.transaction import TransactionalPipe, Tuning
from trainers.manifest import avro_source
from trainers.models import preload
from trainers.pace import Pace, batches
from trainers.shared import SharedTopic, shared_topic
from trainers.signing import open_signer
from trainers.spec import EXPERTS, Public, TaskSpec
from trainers.trainer import Setting
from trainers.worker import Progress, RecordsError, Worker

TUNING = Tuning(batch_records=2048)  # of a key's five-minute counts: a week, and about a second of learning
PACE_SECONDS = 1.0  # at most one transaction a second when live: each writes what changed of the record


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
    threading.Thread(target=preload, name="preload").start()  # while group and record are waited for
    with Slot(home, f"train.{spec.task}", 0) as slot, registry(connection) as client:
        signer = open_signer(home, spec.task)
        ids = _register(client, schemas(spec))
        topics = {
            name: SharedTopic(client, name, spec, stopping.wait) for name in map(shared_topic, spec.contracts)
        }
        public = Public.of([topic.first for topic in topics.values()], spec.target)

        def public_of(schema_id: int) -> Any:
            return next(part for topic in topics.values() if (part := topic.public(schema_id)) is not None)

        setting = Setting(
            spec, public, signer, _cluster(connection), ids[f"models.{spec.task}.v1-value"], public_of
        )
        if tamper is not None:
            setting = replace(setting, tamper=tamper)
        forecasts = ids[f"models.{spec.task}.forecasts.v1-value"]
        worker = Worker(
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
            pace = Pace(tuning.batch_records, pace_seconds)
            for batch in batches(pipe, stopping, until_caught_up, pace, connection):
                before = time.monotonic()
                try:
                    work, now = worker.process(batch)
                except RecordsError as problem:
                    pipe.fail(problem.records, problem.cause)
                    continue
                if pipe.commit(work).result():
                    worker.progress = replace(now, busy_seconds=now.busy_seconds + time.monotonic() - before)
                    progress(worker.progress)
        return worker.progress


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
