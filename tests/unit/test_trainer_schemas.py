"""A trainer meets records of a schema version that came after it, and a registry that does not answer just then."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from schemas.codec import Encoder
from schemas.contract import parse
from schemas.errors import RetriableError
from streams.kafka.records import Records, Source
from trainers.shared import SharedTopic
from trainers.spec import parse as parse_task

CONTRACT = """
contract: t.counts
version: {version}
owner: me
source: {{kind: csv, path: counts.csv}}
event:
  key: detector
  time: {{field: at, format: epoch_ms}}
  fields:
    detector: {{type: string}}
    at: {{type: timestamp}}
    vehicles: {{type: int}}
    lanes: {{type: int}}
privacy:
  protects: vehicle
  neighbours: values
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 1.0
  contribution: {{max: 2, of: [detector, at], held_by: assumed, basis: test, attested_by: test}}
  fields:
    detector: public
    at: {{time: 5min}}
    vehicles: {{count: {{min: 0, max: 256, per_unit: 1}}}}
    lanes: {{public: {{because: of the road}}}}
shares: {{map: {{detector: detector, at: at, vehicles: vehicles{more}}}}}
terms: {{purpose: [test], for: 1d}}
"""
OLD = parse(CONTRACT.format(version="1.0.0", more=""))
NEW = parse(CONTRACT.format(version="1.1.0", more=", lanes: lanes"))
TASK = "task: t\ncontracts: [t.counts]\ntarget: vehicles\nstep: 5min\n"


class Client:
    """The registry's, with versions by number. `away`: so many questions it does not answer."""

    def __init__(self) -> None:
        self.schemas = [OLD.shared_schema]
        self.away = 0

    def get_versions(self, subject: str) -> list[int]:
        if self.away:
            self.away -= 1
            raise ConnectionError
        return list(range(1, len(self.schemas) + 1))

    def get_version(self, subject: str, version: int) -> Any:
        text = json.dumps(self.schemas[version - 1])
        return SimpleNamespace(schema_id=10 + version, schema=SimpleNamespace(schema_str=text))


class Message(SimpleNamespace):
    def value(self) -> bytes:
        return bytes(self.body)

    def key(self) -> bytes:
        return b"d-1"

    def offset(self) -> int:
        return int(self.at)

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_456_790_400_000


def records(*bodies: bytes) -> Records:
    messages: list[Any] = [Message(body=body, at=at) for at, body in enumerate(bodies)]
    return Records(Source("t.counts.shared.v1", 0), messages, start=0, next=len(bodies))


def body(id_: int, schema: Any, **more: Any) -> bytes:
    at = pa.array([1_456_790_400_000], pa.int64()).cast(pa.timestamp("ms"))
    columns = {"detector": pa.array(["d-1"]), "at": at, "vehicles": pa.array([7])}
    columns |= {name: pa.array([value]) for name, value in more.items()}
    return Encoder(id_, schema).encode(pa.RecordBatch.from_pydict(columns))[0]


def test_later_records_wait_for_the_registry_and_are_learned() -> None:
    client, waits = Client(), list[float]()
    any_client: Any = client
    topic = SharedTopic(any_client, "t.counts.shared.v1", parse_task(TASK), waits.append)
    old, new = body(11, OLD.shared_schema), body(12, NEW.shared_schema, lanes=3)
    assert len(topic.events(records(old))[0].values) == 1
    client.schemas.append(NEW.shared_schema)
    client.away = 3
    events, left_out = topic.events(records(old, new, old))
    assert events.values.tolist() == [7, 7, 7]
    assert left_out == 0
    assert len(waits) == 3


def test_a_trainer_that_is_to_stop_waits_no_longer() -> None:
    client = Client()
    any_client: Any = client
    topic = SharedTopic(any_client, "t.counts.shared.v1", parse_task(TASK), lambda seconds: True)
    client.away = 1
    with pytest.raises(RetriableError):
        topic.events(records(body(12, NEW.shared_schema, lanes=3)))
