"""The registry on the real broker: the whole behaviour, and what survives a SIGKILL."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import TransportError

from tests.integration.conftest import RunningStack
from tests.registry_door import Door, avro, record
from tests.registry_suite import RegistryBehaviour


@pytest.fixture
def door(stack: RunningStack) -> Door:
    return Door(stack.owner.registry_url, stack.home / "secrets")


class TestOnKafka(RegistryBehaviour):
    @pytest.fixture
    def door(self, stack: RunningStack) -> Door:
        return Door(stack.owner.registry_url, stack.home / "secrets")


class Second:
    """A registry of our own on the stack's log, to kill and start again. Never appends while the stack's does."""

    def __init__(self, home: Path, bootstrap: str, port: int) -> None:
        self.door = Door(f"http://127.0.0.1:{port}", home / "secrets")
        self.command = [sys.executable, "-m", "sluice.stack.registry", "--home", str(home)]
        self.command += ["--port", str(port), "--bootstrap", bootstrap]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds until it was ready."""
        begin = time.monotonic()
        self.process = subprocess.Popen(self.command)
        while time.monotonic() - begin < 60:
            try:
                if self.door.ask("GET", "/subjects")[0] == 200:
                    return time.monotonic() - begin
            except OSError:
                pass
            assert self.process.poll() is None
            time.sleep(0.02)
        raise AssertionError("not ready within 60 s")

    def end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        return self.process.wait(20)


@pytest.fixture
def second(stack: RunningStack, tmp_path: Path) -> Iterator[Second]:
    shutil.copytree(stack.home / "secrets", tmp_path / "secrets")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = Second(tmp_path, stack.connection("registry").bootstrap, port)
    try:
        yield found
    finally:
        found.end(signal.SIGKILL)


def test_a_killed_registry_comes_back_with_the_same_ids(second: Second, door: Door) -> None:
    subject = f"c{uuid.uuid4().hex}.shared.v1-value"
    second.start()
    fields: list[str] = []
    ids = {}
    with second.door.client("admin") as client:
        for n in range(5):
            fields.append(f"f{n}?")
            ids[client.register_schema(subject, avro(record(*fields)))] = record(*fields)
        client.set_compatibility(subject, "FULL")
        client.delete_version(subject, 2)
    second.end(signal.SIGKILL)
    took = second.start()
    for where in (second.door, door):  # the stack's own registry follows the same log
        with where.client("admin") as client:
            for schema_id, text in ids.items():
                assert json.loads(client.get_schema(schema_id).schema_str) == json.loads(text)
            assert client.get_versions(subject) == [1, 3, 4, 5]
            assert client.get_compatibility(subject) == "FULL"
            assert client.register_schema(subject, avro(record(*fields))) == max(ids)
    assert second.end(signal.SIGTERM) == 0
    assert took < 10


def test_what_was_acknowledged_before_a_kill_is_there_after_it(second: Second) -> None:
    subject = f"c{uuid.uuid4().hex}.shared.v1-value"
    second.start()
    second.door.ask("PUT", f"/config/{subject}", body={"compatibility": "NONE"})
    acknowledged: dict[int, str] = {}

    def write() -> None:
        with second.door.client("share") as client, contextlib.suppress(SchemaRegistryError, TransportError):
            for n in range(100_000):
                acknowledged[client.register_schema(subject, avro(record(f"f{n}")))] = record(f"f{n}")

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 30:
        time.sleep(0.01)
    second.end(signal.SIGKILL)
    writer.join(20)
    second.start()
    with second.door.client("admin") as client:
        for schema_id, text in acknowledged.items():
            assert json.loads(client.get_schema(schema_id).schema_str) == json.loads(text)
        versions = [client.get_version(subject, n) for n in client.get_versions(subject)]
        ids = [v.schema_id for v in versions]
        assert len(set(ids)) == len(ids)  # at most one more than was acknowledged, and never an id twice
        assert set(acknowledged) <= set(ids)
        assert len(ids) <= len(acknowledged) + 1
        new = client.register_schema(subject, avro(record("after")))
        assert new not in ids
    second.end(signal.SIGTERM)


def test_before_the_broker_answers_nothing_is_served_but_a_sign_in(second: Second) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        command = [*second.command[:-1], f"127.0.0.1:{silent.getsockname()[1]}"]
        second.process = subprocess.Popen(command)
        end = time.monotonic() + 20
        while True:
            try:
                status, answer = second.door.ask("GET", "/subjects")
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        assert (status, answer["error_code"]) == (503, 50301)
        assert second.door.ask("GET", "/subjects", None)[0] == 401
        assert second.end(signal.SIGTERM) == 0


def test_the_log_is_confluents(stack: RunningStack, door: Door) -> None:
    subject = f"c{uuid.uuid4().hex}.shared.v1-value"
    schema_id = door.ask("POST", f"/subjects/{subject}/versions", body={"schema": record("a")})[1]["id"]
    door.ask("PUT", f"/config/{subject}", body={"compatibility": "FULL"})
    door.ask("DELETE", f"/subjects/{subject}")
    consumer = Consumer(
        {**stack.admin.settings(), "group.id": uuid.uuid4().hex, "enable.partition.eof": True}
    )
    found: dict[bytes, bytes | None] = {}
    try:
        consumer.assign([TopicPartition("_schemas", 0, 0)])
        while (message := consumer.poll(10)) is not None and message.error() is None:
            found[message.key() or b""] = message.value()
    finally:
        consumer.close()
    value = json.loads(
        found[f'{{"keytype":"SCHEMA","subject":"{subject}","version":1,"magic":1}}'.encode()] or b""
    )
    assert value.items() >= {"subject": subject, "version": 1, "id": schema_id, "deleted": False}.items()
    assert json.loads(value["schema"]) == json.loads(record("a"))
    gone = found[f'{{"keytype":"DELETE_SUBJECT","subject":"{subject}","magic":0}}'.encode()]
    assert json.loads(gone or b"") == {"subject": subject, "version": 1}
    assert found[f'{{"keytype":"CONFIG","subject":"{subject}","magic":0}}'.encode()] is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_registry_is_small(stack: RunningStack) -> None:
    assert stack.owner.registry is not None
    status = Path(f"/proc/{stack.owner.registry.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    assert int(line.split()[1]) < 100 * 1024  # kB; measured 68 MB idle
