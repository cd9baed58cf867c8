"""Reads what a trainer left behind, and lets releases.py and trained.py compare."""

from __future__ import annotations

import io
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastavro import parse_schema, schemaless_reader

from streams.kafka.clients import Connection, logger, registry
from tests.chaos.audit import UnstableError, records
from tests.chaos.oracle import Trace
from tests.chaos.releases import Releases
from tests.chaos.trained import Lessons, Record, record_errors


class Heights:
    """Of each shared partition: offsets of its committed records, and the newest slot up to each."""

    def __init__(self) -> None:
        self._offsets: dict[int, array[int]] = {}
        self._newest: dict[int, array[int]] = {}

    def add(self, partition: int, offset: int, slot: int) -> None:
        offsets = self._offsets.setdefault(partition, array("q"))
        newest = self._newest.setdefault(partition, array("q"))
        newest.append(max(slot, newest[-1]) if newest else slot)
        offsets.append(offset)

    def newest(self, nexts: Mapping[int, int]) -> int | None:
        """The newest slot before these offsets; None where nothing is."""
        found = []
        for partition, offset in nexts.items():
            place = bisect_left(self._offsets.get(partition, array("q")), offset)
            if place:
                found.append(self._newest[partition][place - 1])
        return max(found, default=None)

    @property
    def last(self) -> dict[int, int]:
        return {partition: offsets[-1] for partition, offsets in self._offsets.items()}


def audit_trained(
    admin: Connection,
    task: str,
    shared: str,
    public: bytes,
    lessons: Lessons,
    heights: Heights,
    torn: set[str],
) -> dict[str, Any]:
    """All keys of the report that are about the trainer. Partitions that hide records go into `torn`."""

    def each(topic: str, *kinds: bool) -> Iterator[tuple[Any, bool]]:
        for committed in kinds:
            try:
                for message in records(admin, topic, 1, committed=committed):
                    yield message, committed
            except UnstableError as error:
                torn.update(str(error).split(", "))

    releases = Releases(_schema(admin, f"models.{task}.v1-value"), public)
    for message, committed in each(f"models.{task}.chunks.v1", True, False):
        releases.chunk(message.key(), message.value(), committed=committed)
    for message, committed in each(f"models.{task}.v1", True, False):
        releases.manifest(message.key(), message.value(), committed=committed)
    findings = releases.compare(heights.newest)

    number, trace = _numbers(admin, f"models.{task}.forecasts.v1-value", lessons), Trace()
    for message, committed in each(f"models.{task}.forecasts.v1", True, False):
        trace.saw(0, number(message.value()), b"", committed=committed)
    verdict = lessons.compare(trace)

    newest = {message.key(): message.value() for message, _ in each(f"models.{task}.record.v1", True)}
    errors = list(findings.errors)
    record = Record()
    try:
        record = Record.of(newest)
    except (ValueError, KeyError) as problem:
        errors.append(f"the record cannot be read: {problem}")
    committed_by = group_offsets(admin, f"train.{task}", shared, heights.last) or {}
    wrong = record_errors(
        record, lessons, [release.name for release in releases.line], committed_by, heights.last
    )
    return {
        "releases": len(releases.line),
        "releases_refused": record.candidates - record.version,
        "releases_aborted": releases.aborted,
        "releases_lost": findings.lost,
        "releases_duplicated": findings.duplicated,
        "releases_reordered": findings.reordered,
        "releases_second_payloads": findings.second_payloads,
        "releases_bad": findings.bad,
        "forecasts": lessons.learned,
        "forecasts_lost": verdict.lost,
        "forecasts_duplicated": verdict.duplicated,
        "forecasts_reordered": verdict.reordered,
        "forecasts_unexpected": verdict.unexpected,
        "trainer_errors": len(wrong),
        "trainer_said": [*errors, *wrong],
        "learned": record.events,
    }


def group_offsets(
    admin: Connection, group: str, topic: str, partitions: Mapping[int, Any], timeout_seconds: float = 30
) -> dict[int, int] | None:
    """What a group has committed; None where nobody answers."""
    settings = admin.settings(group_id=group, isolation_level="read_committed")
    consumer = Consumer(settings, logger=logger())
    try:
        wanted = [TopicPartition(topic, each) for each in partitions]
        return {each.partition: each.offset for each in consumer.committed(wanted, timeout_seconds)}
    except KafkaException:
        return None
    finally:
        consumer.close()


def _schema(admin: Connection, subject: str) -> Any:
    with registry(admin) as client:
        return json.loads(client.get_latest_version(subject).schema.schema_str or "{}")


def _numbers(admin: Connection, subject: str, lessons: Lessons) -> Callable[[bytes], int]:
    schema = parse_schema(_schema(admin, subject))

    def number(value: bytes) -> int:
        record: Any = schemaless_reader(io.BytesIO(value[5:]), schema, None)
        return lessons.number(record["key"], int(record["as_of"].timestamp() * 1000))

    return number
