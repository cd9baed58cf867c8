"""A shared topic as a share agent would write it, a task on it, and what came out of a trainer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from schemas.codec import Encoder
from schemas.contract import Contract, parse
from sluice.stack.provision import Opened, open_contract, open_task
from streams.kafka.clients import Connection
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read
from trainers.spec import TaskSpec
from trainers.spec import parse as parse_task
from trainers.train import schemas

STEP_MS = 300_000
START = 1_456_790_400_000  # 2016-03-01T00:00Z

CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:roads.example.city
source: {{kind: csv, path: counts.csv}}
event:
  key: detector
  time: {{field: interval_start, format: "%d/%m/%Y %H:%M", zone: UTC}}
  fields:
    detector:       {{type: string}}
    interval_start: {{type: timestamp}}
    vehicles:       {{type: int}}
privacy:
  protects: vehicle
  neighbours: values
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 1.0
  contribution: {{max: 2, of: [detector, interval_start], held_by: assumed, basis: test, attested_by: test}}
  fields:
    detector:       public
    interval_start: {{time: 5min}}
    vehicles:       {{count: {{min: 0, max: 256, per_unit: 1}}}}
terms: {{purpose: [traffic-forecasting], for: 90d, price: 0 EUR, region: [EU]}}
"""

TASK = """
task: {name}
contracts: [{contract}]
target: vehicles
step: 5min
release_every: {every}
"""


@dataclass(frozen=True)
class Shared:
    """An opened contract with its shared topic."""

    contract: Contract
    opened: Opened

    @property
    def topic(self) -> str:
        return self.contract.topics.shared


def open_shared(stack: RunningStack, name: str) -> Shared:
    contract = parse(CONTRACT.format(name=name))
    return Shared(contract, open_contract(contract, stack.admin))


def counts(slots: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Noisy counts with a daily shape, 0..256."""
    rng = np.random.default_rng(seed)
    shape = 70 + 50 * np.sin(2 * np.pi * slots / 288)
    return np.clip(np.round(shape + rng.normal(0, 6, len(slots))), 0, 256).astype(np.int64)


def share(
    connection: Connection,
    shared: Shared,
    first: int,
    stop: int,
    keys: Sequence[str] = ("d-1",),
    transactions: int = 0,
) -> None:
    """Write slots [first, stop) of every key; markers of `transactions` transactions lie between."""
    slots = np.repeat(np.arange(first, stop), len(keys))
    names = list(keys) * (stop - first)
    values = np.empty(len(slots), np.int64)
    for index in range(len(keys)):
        values[index :: len(keys)] = counts(slots[index :: len(keys)], seed=index)
    times = pa.array(START + slots * STEP_MS, pa.int64()).cast(pa.timestamp("ms", "UTC"))
    columns = {"detector": pa.array(names), "interval_start": times, "vehicles": pa.array(values)}
    schema_id = shared.opened.schema_ids[f"{shared.topic}-value"]
    encoded = Encoder(schema_id, shared.contract.shared_schema).encode(pa.RecordBatch.from_pydict(columns))
    settings = connection.settings(linger_ms=5)
    producer = Producer(settings | ({"transactional.id": f"test-{shared.topic}"} if transactions else {}))
    if transactions:
        producer.init_transactions(30)
    for part in np.array_split(np.arange(len(encoded)), max(1, transactions)):
        if transactions:
            producer.begin_transaction()
        for row in part.tolist():
            producer.produce(shared.topic, encoded[row], names[row].encode(), 0)
        if transactions:
            producer.commit_transaction(30)
    assert producer.flush(30) == 0


def open_training(stack: RunningStack, name: str, contract: str, every: str = "12h") -> TaskSpec:
    """Open a task on the contract; its file lies in the home."""
    text = TASK.format(name=name, contract=contract, every=every)
    spec = parse_task(text)
    open_task(spec.task, [f"{contract}.shared.v1"], stack.admin, schemas(spec))
    file = stack.home / f"{name}.yaml"
    file.write_text(text)
    return spec


def forget_training(stack: RunningStack, spec: TaskSpec) -> None:
    """Delete a task's topics and its group, as if it had never run; the signer stays."""
    client = AdminClient(stack.admin.settings())
    names = [
        name for name in client.list_topics(timeout=10).topics if name.startswith(f"models.{spec.task}.")
    ]
    for future in client.delete_topics(names).values():
        future.result(30)
    deadline = time.monotonic() + 30
    while set(names) & set(client.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    while True:
        try:
            for deleted in client.delete_consumer_groups([f"train.{spec.task}"]).values():
                deleted.result(30)
            break
        except Exception:  # a static member is remembered until its session ends
            assert time.monotonic() < deadline
            time.sleep(0.2)


def trainer_process(stack: RunningStack, task: str, *options: str) -> subprocess.Popen[str]:
    """`sluice train TASK` as a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sluice.cli.main",
            "train",
            str(stack.home / f"{task}.yaml"),
            "--json",
            *options,
        ],
        env={**os.environ, "SLUICE_HOME": str(stack.home)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def everything(stack: RunningStack, task: str) -> dict[str, list[tuple[Any, Any, Any]]]:
    """Key, value and headers of all committed records of the task, by kind of topic."""
    kinds = {"manifests": "", "chunks": ".chunks", "forecasts": ".forecasts"}
    found = {}
    for kind, part in kinds.items():
        messages = read(stack.admin, f"models.{task}{part}.v1")
        found[kind] = [(message.key(), message.value(), message.headers()) for message in messages]
    newest = {message.key(): message.value() for message in read(stack.admin, f"models.{task}.record.v1")}
    found["record"] = [
        (key, value, None)
        for key, value in sorted(newest.items())
        if value is not None and not key.startswith(b"\0")
    ]
    return found
