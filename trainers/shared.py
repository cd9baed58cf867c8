"""Shared records as a trainer sees them: what the registry says of their topic, and how they become events.

All a trainer knows of a contract is the public part that the shared schema carries as its `sluice` attribute.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from schemas import names
from schemas.codec import Decoder
from schemas.errors import ConfigurationError, RetriableError
from schemas.units import MS
from streams.kafka.records import Records
from trainers.trainer import Events

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    from trainers.spec import TaskSpec

AHEAD_MS = MS["d"]
AGAIN_SECONDS = 2.0

log = structlog.get_logger("sluice.train")


def shared_topic(contract: str) -> str:
    """The shared topic of a contract named in a task: `name`, or the topic itself where the task names one."""
    return contract if names.is_shared_topic(contract) else f"{contract}.shared.v1"


class SharedTopic:
    """Schemas and columns of one shared topic. New schema versions are looked up when their first record
    comes; while the registry does not answer, it waits: they are no poison. `pause(seconds)` waits, and says whether
    the trainer is to stop.
    """

    def __init__(
        self,
        client: SchemaRegistryClient,
        topic: str,
        spec: TaskSpec,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.topic, self._pause = topic, pause
        self._client = client
        self._spec = spec
        self._schemas: dict[int, dict[str, Any]] = {}
        self._load()
        self.first: Mapping[str, Any] = self._part(next(iter(self._schemas)))

    def public(self, schema_id: int) -> Mapping[str, Any] | None:
        """Public part of the contract version that wrote with this schema; None where it is of another topic. Raises
        RetriableError only when the trainer is to stop."""
        while schema_id not in self._schemas:
            try:
                self._load()
                break
            except RetriableError as problem:
                log.warning("records of an unknown schema wait", why=problem.message, remedy=problem.remedy)
                if self._pause(AGAIN_SECONDS):
                    raise
        return self._part(schema_id) if schema_id in self._schemas else None

    def events(self, records: Records) -> tuple[Events, int]:
        """The events of these records, and how many were left out: not readable, or from the future.

        One event that a broken clock stamps years ahead would end all releases and make its key deaf for good,
        and an open contract has no clock that denies it. So event time may be a day ahead of the broker's.
        """
        payloads = [
            None if offset in records.doomed else value
            for offset, value in zip(records.offsets, records.values, strict=True)
        ]
        ids = np.array([_schema_id(payload) for payload in payloads], np.int64)
        if any(self.public(id_) is None for id_ in np.unique(ids[ids >= 0]).tolist()):
            log.warning("records with a schema of another subject", topic=self.topic)
        decoded = self._decoder.decode(payloads)
        part = self._part(self._current)
        times = (
            _column(decoded.batch, part["time"]["attribute"]).cast(pa.int64()).to_numpy(zero_copy_only=False)
        )
        target = _column(decoded.batch, part["fields"][self._spec.target]["attribute"])
        values = pc.cast(target, pa.float64()).to_numpy(zero_copy_only=False)
        appended = np.array(records.timestamps, np.int64)[decoded.rows]
        kept = times <= appended + AHEAD_MS
        rows, names = decoded.rows[kept], records.keys
        keys = [(names[row] or b"").decode("utf-8", "replace") for row in rows.tolist()]
        events = Events(
            topic=records.topic,
            partition=records.partition,
            next=records.next,
            keys=keys,
            slots=times[kept] // self._spec.step_ms,
            values=values[kept],
            offsets=np.array(records.offsets, np.int64)[rows],
            schema_ids=ids[rows],
        )
        return events, len(decoded.poison) + int((~kept).sum())

    def _part(self, schema_id: int) -> Mapping[str, Any]:
        part: Mapping[str, Any] = self._schemas[schema_id]["sluice"]
        return part

    def _load(self) -> None:
        subject = f"{self.topic}-value"
        try:
            for version in self._client.get_versions(subject):
                found = self._client.get_version(subject, version)
                self._schemas[int(found.schema_id or 0)] = json.loads(found.schema.schema_str or "{}")
        except Exception as problem:
            raise _unknown(problem, self.topic) from None
        self._current = max(self._schemas)
        part = self._schemas[self._current].get("sluice", {})
        field = part.get("fields", {}).get(self._spec.target, {})
        if field.get("attribute") is None or part["time"]["attribute"] is None:
            raise ConfigurationError(
                f"{self.topic} does not carry {self._spec.target!r} and its time as attributes of their own.",
                "Map both in the contract's `shares`, or set the task's `target` to a field that is shared.",
            )
        if self._spec.step_ms % part["time"]["grid_ms"]:
            raise ConfigurationError(
                f"{self.topic} has a time grid of {part['time']['grid_ms']} ms, "
                f"the task steps of {self._spec.step_ms} ms.",
                "Set the task's `step` to a multiple of the contract's grid.",
            )
        self._decoder = Decoder(self._schemas, current=self._current)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.get_field_index(name))


def _schema_id(value: bytes | None) -> int:
    return (
        int.from_bytes(value[1:5], "big") if value is not None and len(value) >= 5 and value[0] == 0 else -1
    )


def _unknown(problem: Exception, topic: str) -> ConfigurationError | RetriableError:
    status = getattr(problem, "http_status_code", None)
    if status in (401, 403, 404):
        return ConfigurationError(
            f"The registry knows no shared topic {topic} for this principal (status {status}).",
            "Open the contract first: `sluice publish CONTRACT`; and name it in the task as it names itself.",
        )
    return RetriableError(
        f"The registry does not answer ({type(problem).__name__}).",
        "Look at `sluice status`, then try again.",
    )
