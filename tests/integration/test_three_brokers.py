"""Three brokers, replication 3, min.insync.replicas 2, and one of them killed under load: nothing lost, nothing
doubled, every key in order, and nobody has to do anything.

Three processes on the loopback, each broker and controller. Clients and brokers sign in with SCRAM, as on one node;
controllers among themselves with PLAIN: SCRAM's credentials lie in the very log for which a quorum must first be
found (one node alone needs none, Strimzi signs its controllers in by certificate).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.codec import Decoder
from schemas.partition import partition as home_of
from sluice.stack import broker_settings, children, jars, java, ports, provision, ready, security
from sluice.stack.broker import new_cluster_id
from sluice.stack.home import Home, write_private
from sluice.stack.kubernetes import REPLICATED
from streams.kafka.clients import Connection
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import end, unique
from tests.integration.share_help import DAY_MS, START_MS, Opening, opening, working

NODES, PARTITIONS, KEYS, SLOTS = 3, 2, 100, 1_000
EVENTS = KEYS * SLOTS
CHUNK, CHUNKS_A_SECOND, KILL_AT = 1_000, 10, 30  # so 10,000 events/s, the kill after 30,000
READY_SECONDS, BACK_SECONDS = 120, 120
CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:three.example
source: {{kind: csv, path: none.csv}}
event:
  key: meter
  time: {{field: at, format: epoch_ms}}
  fields:
    meter: {{type: string}}
    at: {{type: timestamp}}
    amount: {{type: int}}
privacy:
  protects: person
  neighbours: values
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 1
  contribution: {{max: 1, of: [meter, at], held_by: assumed, basis: test, attested_by: test}}
  fields:
    meter: public
    at: {{time: 1min}}
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
terms: {{purpose: [test], for: 1d}}
partitions: 2
"""


@dataclass
class Cluster:
    """Three nodes and the registry, one home's passwords for all."""

    home: Home
    nodes: list[dict[str, int]] = field(default_factory=list)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    registry: subprocess.Popen[bytes] | None = None
    registry_port: int = 0

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node['CLIENT']}" for node in self.nodes)

    def connection(self, role: str) -> Connection:
        return Connection(
            bootstrap=self.bootstrap,
            principal=role,
            password=security.password(self.home, role),
            registry_url=f"http://127.0.0.1:{self.registry_port}",
        )

    def start(self) -> None:
        self.home.create()
        security.ensure_passwords(self.home)
        found = ports.free(3 * NODES + 1)
        self.registry_port = found.pop()
        self.nodes = [
            dict(zip(security.LISTENERS, found[i : i + 3], strict=True)) for i in range(0, 3 * NODES, 3)
        ]
        arguments = self.home.config / "format.arguments"
        write_private(arguments, "\n".join(security.scram_arguments(self.home)))
        program, cluster_id = self._program(), new_cluster_id()
        files = [self._configure(node) for node in range(NODES)]
        words = ["kafka.tools.StorageTool", "format", "-t", cluster_id, f"@{arguments}", "-c", files[0]]
        formatted = subprocess.run(  # what it prints holds salted passwords
            [*program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        assert formatted.returncode == 0
        for node in range(1, NODES):
            self._format_as_the_first(node)
        for node, file in enumerate(files):
            out = self.home.logs / f"node-{node}.out"
            child = children.leashed(f"node-{node}", [*program, "kafka.Kafka", file], out)
            self.processes[node] = child.spawn()
        words = ["--port", str(self.registry_port), "--home", str(self.home.path)]
        command = children.python("sluice.stack.registry", *words, "--bootstrap", self.bootstrap)
        # beside the brokers, for which it waits
        self.registry = children.leashed("registry", command, self.home.logs / "registry.out").spawn()
        admin = self.connection("admin")
        assert ready.wait_for(self._all_answer, self._live, READY_SECONDS), self.said()
        provision.open_registry(admin)
        assert ready.wait_for(lambda: ready.registry_answers(admin), self._live, READY_SECONDS), self.said()
        self.home.write_stack({"bootstrap": self.bootstrap, "registry_url": admin.registry_url, "pids": {}})

    def _program(self) -> list[str]:
        runtime = java.find()
        log4j = broker_settings.LOG4J.format(folder=self.home.logs)
        write_private(self.home.config / "log4j2.properties", log4j)
        options = broker_settings.java_options(runtime.version, str(self.home.config), str(self.home.logs))
        return [str(runtime.executable), *options, "-cp", ":".join(map(str, jars.class_path()))]

    def _configure(self, node: int) -> str:
        """The embedded broker's settings and what three nodes change of them."""
        voters = ",".join(f"{each}@127.0.0.1:{at['CONTROLLER']}" for each, at in enumerate(self.nodes))
        secret = security.password(self.home, "broker").get_secret_value()
        plain = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="broker" password="{secret}" user_broker="{secret}";'
        )
        own = {
            "node.id": str(node),
            "log.dirs": str(self.home.data / str(node)),
            "controller.quorum.voters": voters,
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": plain,
        }
        text = broker_settings.properties(
            broker_settings.NODE, security.settings(self.home, self.nodes[node]), REPLICATED, own
        )
        file = self.home.config / f"node-{node}.properties"
        write_private(file, text)
        return str(file)

    def _format_as_the_first(self, node: int) -> None:
        """Another Java would take seconds: only node and folder are told apart by their ids."""
        first, folder = self.home.data / "0", self.home.data / str(node)
        shutil.copytree(first, folder)
        text = (first / "meta.properties").read_text()
        text = re.sub(r"(?m)^node\.id=.*$", f"node.id={node}", text)
        text = re.sub(r"(?m)^directory\.id=.*$", f"directory.id={new_cluster_id()}", text)
        (folder / "meta.properties").write_text(text)

    def _all_answer(self) -> bool:
        admin = self.connection("admin")
        if not ready.broker_answers(admin):
            return False
        return len(AdminClient(admin.settings()).list_topics(timeout=5).brokers) == NODES

    def _live(self) -> bool:
        return all(process.poll() is None for process in self.processes.values())

    def said(self) -> str:
        return "".join(file.read_text(errors="replace")[-2000:] for file in self.home.logs.glob("*"))

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait()

    def stop(self) -> None:
        for process in (self.registry, *self.processes.values()):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(Home(tmp_path / "home"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Feed(threading.Thread):
    """An owner's producer at a steady pace, with a plain idempotent client; notes what the brokers acknowledged."""

    def __init__(self, opened: Opening) -> None:
        super().__init__(daemon=True)
        self.sent: dict[int, list[tuple[str, int]]] = defaultdict(
            list
        )  # by partition, in the order of sending
        self.acknowledged, self.chunks, self.failed = 0, 0, ""
        meters = [f"meter-{number:03d}" for number in range(KEYS)]
        self.values = [
            (meter, START_MS + slot * 60_000, (slot + number) % 100)
            for slot in range(SLOTS)
            for number, meter in enumerate(meters)
        ]
        self._opened = opened

    def run(self) -> None:
        opened, topic = self._opened, self._opened.contract.topics.raw
        producer = Producer(opened.stack.admin.settings(enable_idempotence=True, linger_ms=5))
        begun = time.monotonic()
        for row, (meter, at, amount) in enumerate(self.values):
            value = opened.encode({"meter": meter, "at": at, "amount": amount})
            partition = home_of(meter.encode(), PARTITIONS)
            producer.produce(topic, value, meter.encode(), partition, on_delivery=self._delivered)
            self.sent[partition].append((meter, at))
            if row % CHUNK == CHUNK - 1:
                self.chunks += 1
                producer.poll(max(0.0, begun + self.chunks / CHUNKS_A_SECOND - time.monotonic()))
        left = producer.flush(BACK_SECONDS)
        self.failed = self.failed or (f"{left} never delivered" if left else "")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed = error.str()
        else:
            self.acknowledged += 1


def out_of(opened: Opening, partition: int, *, committed: bool) -> list[tuple[str, int]]:
    topics, contract = opened.contract.topics, opened.contract
    schema_id = opened.opened.schema_ids[f"{topics.shared}-value"]
    values = [value for _, value, _ in opened.out(topics.shared, partition, committed=committed)]
    decoded = Decoder({schema_id: contract.shared_schema}).decode(values)
    assert decoded.poison == []
    columns = decoded.batch.to_pydict()
    times = [int(at.timestamp() * 1000) for at in columns["at"]]
    return list(zip(columns["meter"], times, strict=True))


def replicas(admin: Connection, topic: str) -> dict[int, tuple[int, set[int], set[int]]]:
    """Leader, replicas and those in sync, by partition."""
    found = AdminClient(admin.settings()).list_topics(topic, timeout=20).topics[topic].partitions
    return {number: (each.leader, set(each.replicas), set(each.isrs)) for number, each in found.items()}


def stable_end(admin: Connection, topic: str, partition: int) -> int:
    """Where committed records end; -1 while nobody can say.

    Asked by a new client each time: one that has seen the old leader asks it on, for as long as its metadata are young.
    """
    client, latest = AdminClient({**admin.settings(), "log_level": 0}), cast(Any, OffsetSpec).latest()
    asked = {TopicPartition(topic, partition): latest}
    answers = client.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=5)
    try:
        return int(next(iter(answers.values())).result(10).offset)
    except (KafkaException, FutureTimeout):
        return -1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_loss_of_a_broker_loses_doubles_and_reorders_nothing(cluster: Cluster, tmp_path: Path) -> None:
    stack = RunningStack(cluster.home.path, cast(Any, cluster))
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("three.brokers")))
    topics, admin = opened.contract.topics, stack.admin
    for topic in (topics.raw, topics.shared, topics.ledger, "_schemas"):
        assert all(len(copies) == NODES for _, copies, _ in replicas(admin, topic).values())

    feed = Feed(opened)
    for partition in range(PARTITIONS):
        opened.send([(b"clock", opened.clock(START_MS + DAY_MS // 2))], partition)
    with working(opened, "--slot", "0", "--batch", "2000") as worker:
        worker.wait([1] * PARTITIONS)  # it is at work before the load begins
        feed.start()
        deadline = time.monotonic() + BACK_SECONDS
        while feed.chunks < KILL_AT or stable_end(admin, topics.shared, 0) <= 0:
            assert worker.process.poll() is None, worker.log.read_text()[-3000:]
            assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
            time.sleep(0.1)
        victim = replicas(admin, topics.raw)[0][0]
        before = stable_end(admin, topics.shared, 0)
        cluster.kill(victim)
        killed = time.monotonic()
        assert feed.is_alive(), "the kill came after the load"
        while stable_end(admin, topics.shared, 0) <= before + CHUNK:
            assert worker.process.poll() is None, worker.log.read_text()[-3000:]
            assert time.monotonic() < killed + BACK_SECONDS, worker.log.read_text()[-3000:]
            time.sleep(0.1)
        back_seconds = time.monotonic() - killed
        feed.join(BACK_SECONDS)
        assert not feed.is_alive()
        assert (feed.failed, feed.acknowledged) == ("", EVENTS)
        worker.wait([end(admin, topics.raw, partition) for partition in range(PARTITIONS)])
        counts = worker.stop()

    sys.stdout.write(f"shared records flow again {back_seconds:.1f} s after the kill of node {victim}\n")
    assert (counts["events"], counts["shared"]) == (EVENTS, EVENTS)
    for partition in range(PARTITIONS):
        leader, _, in_sync = replicas(admin, topics.shared)[partition]
        assert leader != victim
        assert in_sync == set(range(NODES)) - {victim}
        expected = feed.sent[partition]
        assert out_of(opened, partition, committed=True) == expected  # none lost, none doubled, all in order
        assert set(out_of(opened, partition, committed=False)) == set(expected)
        assert opened.out(topics.dlq, partition) == []
