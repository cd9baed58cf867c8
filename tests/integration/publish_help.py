"""Contracts, files and readers for tests of publishing."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

from producers.positions import Positions, Progress
from schemas.contract import Contract, load
from sluice.stack.provision import CLOCK_SUBJECT, open_contract
from streams.kafka.clients import Connection
from tests.integration.kafka_help import read, unique

CONTRACT = """
contract: {name}
version: 1.0.0
owner: me
source: {{kind: csv, path: {file}}}
partitions: {partitions}
event:
  key: sensor
  time: {{field: at, format: "%Y-%m-%d %H:%M:%S", zone: UTC}}
  fields:
    sensor: {{type: string}}
    at:     {{type: timestamp}}
    n:      {{type: int}}
privacy:
  protects: person
  neighbours: values
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 1.0
  contribution: {{max: 1, of: [sensor, at], held_by: assumed, basis: test, attested_by: test}}
  fields:
    sensor: {{public: {{because: a place}}}}
    at:     {{time: 1min}}
    n:      {{count: {{min: 0, max: 1000, per_unit: 1}}}}
shares: {{}}
terms: {{purpose: [testing], for: 1d}}
"""


@dataclass(frozen=True)
class Made:
    """An opened contract in a folder of its own."""

    path: Path
    contract: Contract
    schema_ids: dict[str, int]

    @property
    def source(self) -> Path:
        return self.contract.source.path


class Entry(NamedTuple):
    """One record of a raw partition, told apart from others without the schema's id."""

    key: bytes | None
    clock: bool
    body: bytes
    headers: tuple[tuple[str, bytes], ...]


def write_contract(folder: Path, *, partitions: int = 1, file: str = "counts.csv") -> Path:
    path = folder / "contract.yaml"
    path.write_text(CONTRACT.format(name=unique("test.publish"), partitions=partitions, file=file))
    return path


def make(folder: Path, admin: Connection, *, partitions: int = 1) -> Made:
    path = write_contract(folder, partitions=partitions)
    contract = load(path)
    return Made(path, contract, dict(open_contract(contract, admin).schema_ids))


def line(index: int, *, start: int = 0, sensors: int = 7) -> str:
    """Row `index`: one reading of some sensor, in the order of time, a reading every 10 s."""
    at = start + index * 10
    day, second = divmod(at, 86_400)
    moment = f"2016-01-{4 + day:02d} {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"s{index % sensors},{moment},{index}\n"


def write_rows(path: Path, count: int, *, bad_every: int = 0) -> dict[int, bytes]:
    """A CSV file; every `bad_every`-th row is broken in one of four ways. Returns the broken lines by number."""
    rng = random.Random(5)
    broken = {}
    with path.open("w") as file:
        file.write("sensor,at,n\n")
        for index in range(count):
            text = line(index)
            if bad_every and index % bad_every == bad_every - 1:
                sensor, at, n = text.strip().split(",")
                text = rng.choice([f",{at},{n}\n", f"{sensor},never,{n}\n", f"{sensor},{at}\n", f'"{text}'])
                broken[index + 2] = text.rstrip("\n").encode()
            file.write(text)
    return broken


def log(admin: Connection, made: Made, topic: str, *, committed: bool = True) -> list[list[Entry]]:
    """Every partition of the raw or the dead-letter topic, as one who reads all of it sees it."""
    partitions = made.contract.partitions
    clock = made.schema_ids[CLOCK_SUBJECT]
    found = []
    for partition in range(partitions):
        entries = []
        for message in read(admin, topic, partition, committed=committed):
            value = message.value()
            framed = topic == made.contract.topics.raw
            entries.append(
                Entry(
                    message.key(),
                    framed and int.from_bytes(value[1:5], "big") == clock,
                    value[5:] if framed else value,
                    tuple(message.headers() or ()),
                )
            )
        found.append(entries)
    return found


def decoded(entry: Entry, made: Made) -> dict[str, Any]:
    schema = fastavro.parse_schema(made.contract.raw_schema)
    found = fastavro.schemaless_reader(io.BytesIO(entry.body), schema, None)
    assert isinstance(found, dict)
    return found


def progress(admin: Connection, made: Made, name: str | None = None) -> Progress | None:
    return Positions(admin, made.contract.topics.source).read(name or made.source.name)
