"""Independent accounting: the source file, raw, shared and dead letters, matched by key and slot.

Shares no code with the producer or the agent on purpose: its own reading of the file, its own consumer and
decoding. Runs on the owner's side, as `admin`: it sees raw.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from schemas.errors import RetriableError
from streams.kafka.clients import Connection, registry

if TYPE_CHECKING:
    from schemas.contract import Contract

Place = tuple[str, int]  # key, slot


@dataclass(frozen=True, slots=True)
class Accounting:
    """Counts of events. `lost`: neither shared nor dead letters nor denied. `duplicated`: rows too many."""

    events_in: int
    raw: int
    shared: int
    denied: int
    rejected: int
    lost: int
    duplicated: int


def read_topic(connection: Connection, topic: str, isolation: str = "read_committed") -> Iterator[Message]:
    """Every record of a topic that is there now, partition by partition in log order."""
    consumer = Consumer(
        connection.settings(
            group_id="sluice.reconcile",
            enable_auto_commit=False,
            enable_partition_eof=True,
            isolation_level=isolation,
        )
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        open_ = set(partitions)
        while open_:
            message = consumer.poll(10)
            if message is None:
                raise RetriableError(f"{topic}: no answer for 10 s.", "See `sluice status`.")
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                open_.discard(message.partition())
            else:
                raise RetriableError(f"{topic}: {error.str()}")
    finally:
        consumer.close()


class AvroReader:
    """Confluent-framed Avro to dicts, schemas by id from the registry; knows the record's name."""

    def __init__(self, connection: Connection) -> None:
        self._registry = registry(connection)
        self._schemas: dict[int, Any] = {}

    def __call__(self, value: bytes) -> tuple[str, dict[str, Any]]:
        number = int.from_bytes(value[1:5], "big")
        if number not in self._schemas:
            text = self._registry.get_schema(number).schema_str
            self._schemas[number] = fastavro.parse_schema(json.loads(text or ""))
        schema = self._schemas[number]
        record = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        return str(schema["name"]).rsplit(".", 1)[-1], record  # type: ignore[return-value]


def source_rows(contract: Contract) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The file's rows as (key, slot) and source columns; rows whose key or time is broken have slot -1."""
    event, zone = contract.event, ZoneInfo(contract.event.time.zone or "UTC")
    grid_ms = _grid_ms(contract)
    key_field, time_field = event.fields[event.key], event.fields[event.time.field]
    for row in _file_rows(contract.source.path, contract.source.kind):
        key = row.get(key_field.column or event.key, key_field.default)
        try:
            told = datetime.strptime(row[time_field.column or event.time.field], event.time.format)
            slot = int(told.replace(tzinfo=zone).timestamp() * 1000) // grid_ms
        except (KeyError, ValueError, TypeError):
            slot = -1
        yield (str(key), slot), row


def account(contract: Contract, connection: Connection, denied: int) -> Accounting:
    """Match everything by key and slot. `denied`, from the agent's ledger, must explain what is missing."""
    reader, grid_ms = AvroReader(connection), _grid_ms(contract)
    time_field = contract.event.time.field
    time_attribute = contract.public()["time"]["attribute"]

    source = Counter(place for place, _ in source_rows(contract))

    def raw_time(name: str, record: dict[str, Any]) -> int | None:
        return None if name == "Clock" else _ms(record[time_field])

    def shared_time(_: str, record: dict[str, Any]) -> int | None:
        return _ms(record[time_attribute])

    raw = _places(reader, connection, contract.topics.raw, raw_time, grid_ms)
    shared = _places(reader, connection, contract.topics.shared, shared_time, grid_ms)
    rejected = sum(1 for _ in read_topic(connection, contract.topics.dlq))

    once = Counter(dict.fromkeys(source, 1))
    duplicated = (raw - source).total() + (shared - once).total()
    missing = source.total() - shared.total() - rejected
    return Accounting(
        events_in=source.total(),
        raw=raw.total(),
        shared=shared.total(),
        denied=denied,
        rejected=rejected,
        lost=max(missing - denied, (once - shared).total() - rejected - denied, 0),
        duplicated=duplicated,
    )


def _places(
    reader: AvroReader,
    connection: Connection,
    topic: str,
    time_ms: Callable[[str, dict[str, Any]], int | None],
    grid_ms: int,
) -> Counter[Place]:
    places: Counter[Place] = Counter()
    for message in read_topic(connection, topic):
        at = time_ms(*reader(message.value() or b""))
        if at is not None:
            places[((message.key() or b"").decode(), at // grid_ms)] += 1
    return places


def _grid_ms(contract: Contract) -> int:
    return int(contract.public()["time"]["grid_ms"])


def _ms(value: datetime | int) -> int:
    return value if isinstance(value, int) else round(value.timestamp() * 1000)


def _file_rows(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    if kind == "csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    elif kind == "jsonl":
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)
    else:
        from pyarrow import parquet

        yield from parquet.read_table(path).to_pylist()
