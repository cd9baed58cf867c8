"""A subscriber on the real broker: what it takes, what it refuses, and what it tells about it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from fastavro import schemaless_reader
from pydantic import SecretStr

from schemas.errors import RetriableError, WallError
from sluice.stack.home import Home
from sluice.stack.provision import open_task
from sluice.stack.supervisor import Stack
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read, unique
from tests.integration.train_help import open_shared, open_training, share
from tests.releases import OTHER, SIGNER, Made, graph, make
from trainers.manifest import GRAPH, avro
from trainers.releases import ReleaseLog
from trainers.subscriber import Subscription, subscribe
from trainers.train import schemas, train


@dataclass
class Releases:
    """Writes releases as a trainer would: chunks and manifest in one transaction."""

    stack: RunningStack
    task: str

    def __post_init__(self) -> None:
        from trainers.spec import parse

        spec = parse(f"task: {self.task}\ncontracts: [none]\ntarget: x\nstep: 5min\n")
        open_task(self.task, [], self.stack.admin, schemas(spec))
        settings = self.stack.admin.settings(linger_ms=5, transactional_id=f"test-{self.task}")
        self._producer = Producer(settings | {"log_level": 0})
        self._producer.init_transactions(30)

    def publish(self, *releases: Made, chunks: bool = True) -> None:
        self._producer.begin_transaction()
        for made in releases:
            for key, piece in made.chunks.items() if chunks else ():
                self._producer.produce(f"models.{self.task}.chunks.v1", piece, key.encode())
            self._producer.produce(f"models.{self.task}.v1", made.value, made.manifest.release.encode())
        self._producer.commit_transaction(30)
        last = releases[-1].value  # a commit returns before its markers are written
        until(lambda: read(self.stack.admin, f"models.{self.task}.v1")[-1].value() == last)

    def make(self, version: int, offset: int | None = None, **more: Any) -> Made:
        return make(version, 10 * version if offset is None else offset, **({"task": self.task} | more))

    def follow(self, **more: Any) -> Subscription:
        options: dict[str, Any] = {"public_key": SIGNER.public, "name": "app", "timeout_seconds": 20.0} | more
        return subscribe(self.task, self.stack.connection("subscriber"), **options)

    def acks(self) -> list[dict[str, Any]]:
        messages = read(self.stack.admin, f"models.{self.task}.acks.v1")
        return [
            schemaless_reader(io.BytesIO(m.value()[5:]), avro("model_ack"), None)  # type: ignore[misc]
            for m in messages
        ]


@pytest.fixture
def releases(stack: RunningStack) -> Releases:
    return Releases(stack, unique("toy"))


def until(condition: Callable[[], bool], seconds: float = 25.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_starts_at_the_newest_and_follows(releases: Releases) -> None:
    releases.publish(*(releases.make(version) for version in (1, 2, 3)))
    with releases.follow() as model:
        forecast = model.forecast("b")
        assert (forecast.version, forecast.value, forecast.interval) == (3, 5.5, (3.5, 7.5))
        for version in (4, 5):
            releases.publish(releases.make(version))
        releases.publish(releases.make(6), releases.make(7, files={GRAPH: graph(bias=1.0)}))
        assert model.wait(6, 20).forecast("b").value == 6.5
        assert [update.version for update in model.history if update.applied] == [3, 4, 5, 6, 7]
    assert model.forecast("b").version == 7  # the model survives the subscription
    acks = releases.acks()
    assert [(ack["version"], ack["state"], ack["subscriber"]) for ack in acks] == [
        (version, "applied", "app") for version in (3, 4, 5, 6, 7)
    ]


def test_what_does_not_hold_is_refused_and_acked(releases: Releases) -> None:
    releases.publish(releases.make(5))
    flipped = releases.make(6)
    bad = flipped.value[:40] + bytes([flipped.value[40] ^ 1]) + flipped.value[41:]
    tampered = releases.make(7)
    tampered.chunks.update({key: b"x" + piece[1:] for key, piece in tampered.chunks.items() if GRAPH in key})
    with releases.follow() as model:
        assert model.forecast("a").version == 5
        releases.publish(Made(flipped.manifest, bad, flipped.chunks))
        releases.publish(releases.make(6, signer=OTHER))
        releases.publish(Made(flipped.manifest, flipped.value[:-30], flipped.chunks))
        releases.publish(releases.make(5))
        releases.publish(releases.make(6, offset=49))
        releases.publish(releases.make(6, task="another"))
        releases.publish(releases.make(6, files={GRAPH: b"no graph"}))
        releases.publish(tampered)
        until(lambda: len(model.history) == 9)
        assert model.forecast("a").version == 5
        releases.publish(releases.make(8))
        assert model.wait(5, 20).manifest.version == 8
    reasons = [ack["reason"] for ack in releases.acks()]
    assert reasons == [
        "",
        "signature-invalid",
        "signer-unknown",
        "signer-unknown",  # truncated: other bytes stand where the key should be
        "not-newer",
        "not-newer",
        "wrong-task",
        "graph-unusable",
        "chunk-damaged",
        "",
    ]


def test_an_old_release_that_is_sent_again_is_not_the_newest(releases: Releases, tmp_path: Path) -> None:
    """Its signature holds, and it is the last record of the log: once a new subscriber began with it, and one that
    remembered a newer one ended up with none.
    """
    old = releases.make(1)
    releases.publish(old, releases.make(2), releases.make(3))
    releases.publish(old)
    for _ in range(2):  # the second one remembers
        with releases.follow(home=tmp_path) as model:
            assert model.forecast("a").version == 3


def test_subscribers_cannot_fill_the_owners_disk(releases: Releases) -> None:
    """All that they may write is acks: small ones, and no more of them than 64 MiB."""
    topic = f"models.{releases.task}.acks.v1"
    failed: list[KafkaError | None] = []
    writer = Producer(releases.stack.connection("subscriber").settings())
    for size in (1 << 10, 64 << 10):
        writer.produce(topic, bytes(size), on_delivery=lambda error, _: failed.append(error))
        writer.flush(10)
    assert failed[0] is None
    assert failed[1] is not None
    assert failed[1].code() == KafkaError.MSG_SIZE_TOO_LARGE
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(releases.stack.admin.settings())
    found = admin.describe_configs([resource])[resource].result(10)
    kept, segment = (int(found[name].value) for name in ("retention.bytes", "segment.bytes"))
    assert kept + segment <= 80 << 20


def test_missing_chunks_are_refused_after_a_while(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.subscriber.CHUNK_SECONDS", 1.0)
    releases.publish(releases.make(1))
    releases.publish(releases.make(2), chunks=False)
    with releases.follow() as model:
        assert model.forecast("a").version == 1  # the newest that holds
        assert [update.reason.split(":")[0] for update in model.history] == ["chunk-missing", ""]
        releases.publish(releases.make(3), chunks=False)
        releases.publish(releases.make(4))
        assert model.wait(1, 20).manifest.version == 4


def test_a_late_chunk_is_waited_for(releases: Releases) -> None:
    releases.publish(releases.make(1))
    with releases.follow() as model:
        assert model.forecast("a").version == 1
        late = releases.make(2)
        releases.publish(late, chunks=False)
        time.sleep(1.0)
        assert model.version == 1
        producer = Producer(releases.stack.admin.settings(linger_ms=0))
        for key, piece in late.chunks.items():
            producer.produce(f"models.{releases.task}.chunks.v1", piece, key.encode())
        producer.flush(10)
        assert model.wait(1, 20).manifest.version == 2


def test_a_restart_remembers_signer_and_order(releases: Releases, tmp_path: Path) -> None:
    releases.publish(releases.make(1), releases.make(2))
    with releases.follow(home=tmp_path, public_key=None) as model:
        assert model.forecast("a").version == 2
        assert model.pin.origin == "first-use"
    with releases.follow(home=tmp_path, public_key=None) as model:
        assert model.forecast("a").version == 2
        assert model.pin.origin == "remembered"
        releases.publish(releases.make(3, signer=OTHER), releases.make(3))
        assert model.wait(2, 20).manifest.version == 3
        assert [update.reason.split(":")[0] for update in model.history] == ["", "signer-unknown", ""]


def test_callbacks_are_told_and_may_fail(releases: Releases) -> None:
    seen = []

    def told(update: Any) -> None:
        seen.append(update.version)
        raise ValueError

    releases.publish(releases.make(1))
    with releases.follow(on_update=told) as model:
        assert model.forecast("a").version == 1
        releases.publish(releases.make(2))
        model.wait(1, 20)
        until(lambda: seen == [1, 2])


def test_no_release_yet_is_told(releases: Releases) -> None:
    with (
        releases.follow(timeout_seconds=1.0) as model,
        pytest.raises(RetriableError, match="No verified release of task") as caught,
    ):
        model.forecast("a")
    assert "sluice train" in caught.value.remedy


def test_a_task_that_is_not_open_is_told(stack: RunningStack) -> None:
    with (
        subscribe("nowhere", stack.connection("subscriber"), timeout_seconds=1.0) as model,
        pytest.raises((WallError, RetriableError)),
    ):
        model.forecast("a")
    with pytest.raises(WallError, match="not open"):
        model.forecast("a")


def test_a_wrong_password_is_told(stack: RunningStack, releases: Releases) -> None:
    from dataclasses import replace

    wrong = replace(stack.connection("subscriber"), password=SecretStr("wrong"))
    with (
        subscribe(releases.task, wrong, timeout_seconds=20.0) as model,
        pytest.raises(WallError, match="name or password"),
    ):
        model.forecast("a")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_it_outlives_the_broker_and_may_start_before_it(tmp_path: Path) -> None:
    """Down at the start, later gone and back again: the app's one subscription gets every release."""
    home = Home(tmp_path / "own")
    owner = Stack(home)
    owner.start()
    running = RunningStack(home.path, owner)
    releases = Releases(running, "toy")
    releases.publish(releases.make(1))
    owner.stop()
    port, registry_port = owner.broker.port, owner.registry_port
    with releases.follow(timeout_seconds=2.0) as model:
        with pytest.raises(RetriableError, match="does not answer"):
            model.forecast("a")
        until(lambda: isinstance(model.problem, RetriableError))
        for version in (1, 2):
            again = Stack(home, port, registry_port)
            again.start()
            try:
                releases.stack = RunningStack(home.path, again)
                if version > 1:
                    releases.publish(releases.make(version))
                assert model.wait(version - 1, 60).forecast("a").version == version
                assert model.problem is None
            finally:
                again.stop()
            assert model.forecast("a").version == version  # without a broker too
        assert [update.reason for update in model.history] == ["", ""]


@pytest.mark.parametrize("answered", [True, False])
def test_a_client_that_fetches_no_more_is_built_anew(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """Whether or not it can ask where the log ends, nothing comes: librdkafka's issue 5301."""
    monkeypatch.setattr("trainers.releases.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("trainers.releases.OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr("trainers.releases.DEAD_SECONDS", 2.0)
    real, stranded = ReleaseLog._poll, threading.Event()

    def nothing(log: ReleaseLog, timeout_seconds: float) -> Any:
        if not stranded.is_set():
            return real(log, timeout_seconds)
        log._consumer.poll(timeout_seconds)
        return None

    monkeypatch.setattr(ReleaseLog, "_poll", nothing)
    opened: list[ReleaseLog] = []
    enter = ReleaseLog.__enter__

    def entered(log: ReleaseLog) -> ReleaseLog:
        stranded.clear()
        opened.append(log)
        return enter(log)

    class Deaf(Consumer):
        def get_watermark_offsets(self, *about: Any, **more: Any) -> Any:
            if stranded.is_set() and not answered:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
            return super().get_watermark_offsets(*about, **more)

    monkeypatch.setattr(ReleaseLog, "__enter__", entered)
    monkeypatch.setattr("trainers.releases.Consumer", Deaf)
    releases.publish(releases.make(1))
    with releases.follow() as model:
        assert model.forecast("a").version == 1
        time.sleep(1.0)
        stranded.set()
        releases.publish(releases.make(2))
        assert model.wait(1, 20).forecast("a").version == 2
        time.sleep(3.0)
        assert len(opened) == 2  # nothing to read is no reason


def test_from_shared_counts_to_the_command_line(stack: RunningStack) -> None:
    shared = open_shared(stack, unique("traffic"))
    share(stack.admin, shared, 0, 300, keys=("d-1", "d-2"))
    spec = open_training(stack, unique("task"), shared.contract.contract)
    connection = stack.connection("trainer")
    end = train(spec, connection, home=stack.home, stopping=threading.Event(), until_caught_up=True)
    assert end.version >= 1

    def sluice(*arguments: str) -> str:
        environment = {**os.environ, "SLUICE_HOME": str(stack.home)}
        command = [sys.executable, "-m", "sluice.cli.main", *arguments]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stderr
        return found.stdout

    forecast = json.loads(sluice("forecast", spec.task, "d-2", "--json"))
    assert forecast["key"] == "d-2"
    assert forecast["epsilon"] == "1.0"
    assert forecast["interval"][0] <= forecast["value"] <= forecast["interval"][1]
    lines = sluice("subscribe", spec.task, "--once").splitlines()
    assert [line.split(":")[0] for line in lines] == ["d-1", "d-2"]
    assert re.search(r"epsilon 1\.0 per vehicle", lines[0])
    assert len(sluice("subscribe", spec.task, "--once", "--json", "--key", "d-1").splitlines()) == 1
    found = subprocess.run(
        [sys.executable, "-m", "sluice.cli.main", "forecast", spec.task, "d-9"],
        env={**os.environ, "SLUICE_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 2
    assert "Known: d-1, d-2." in found.stderr
