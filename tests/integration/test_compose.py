"""docker-compose.yml without Docker: every service's own command, as a process, with the environment of the
file.

Only what a container would change is changed: names of hosts to this machine's, container folders to
temporary ones. The broker starts from the very files that `prepare` writes for it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.stack import jars, java, ports
from sluice.stack.compose import PORTS

ROOT = Path(__file__).parents[2]
ALL = {"prepare", "kafka", "registry", "open", "publish", "share", "train", "subscribe", "lag"}
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "SLUICE_CACHE") if name in os.environ}


class Compose:
    """The file, and its services as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        client, internal, controller, registry = ports.free(4)
        self.here = {
            "kafka:9092": f"127.0.0.1:{client}",
            "registry:8081": f"127.0.0.1:{registry}",
            "8081": str(registry),
            "0.0.0.0": "127.0.0.1",
        }
        self.broker_ports = {"CLIENT": client, "INTERNAL": internal, "CONTROLLER": controller}

    def volume(self, service: str, target: str) -> Path:
        for mount in self.services[service]["volumes"]:
            if mount == f"stack:{target}":
                return self.folder
            if isinstance(mount, dict) and mount["target"] == target:
                return self.folder / str(mount["volume"]["subpath"])
        raise AssertionError(f"{service} mounts nothing at {target}")

    def translate(self, service: str, text: str) -> str:
        for there, here in self.here.items():
            text = text.replace(there, here) if not there.isdigit() or text == there else text
        if "/var/lib/sluice" in text:
            text = text.replace("/var/lib/sluice", str(self.volume(service, "/var/lib/sluice")))
        return text

    def start(self, name: str) -> subprocess.Popen[bytes]:
        service = self.services[name]
        command = [self.translate(name, part) for part in service["command"]]
        program = {"python": [sys.executable], "sluice": [sys.executable, "-m", "sluice.cli.main"]}
        environment = {key: self.translate(name, value) for key, value in service["environment"].items()}
        return self.spawn(name, [*program[command[0]], *command[1:]], environment)

    def start_kafka(self) -> subprocess.Popen[bytes]:
        """The two Java programs that the service's shell line runs, from the files it would mount."""
        script = " ".join(self.services["kafka"]["command"])
        format_, start = (shlex.split(part) for part in script.split("&&"))
        assert format_[:2] == ["/opt/kafka/bin/kafka-run-class.sh", "kafka.tools.StorageTool"]
        assert format_[3:] == [">", "/dev/null", "2>&1"]
        assert start[:2] == ["exec", "/opt/kafka/bin/kafka-server-start.sh"]
        mount, mine = self.volume("kafka", "/sluice"), self.folder.parent / "kafka"
        mine.mkdir()
        for file in ("format.arguments", "broker.properties"):
            text = (mount / file).read_text().replace("/sluice/", f"{mine}/")
            text = text.replace("/var/lib/kafka/data", f"{mine}/data").replace("//kafka:", "//127.0.0.1:")
            text = text.replace("//0.0.0.0:", "//127.0.0.1:")
            for listener, there in PORTS.items():
                text = text.replace(f":{there}", f":{self.broker_ports[listener]}")
            (mine / file).write_text(text)
        class_path = ":".join(map(str, jars.class_path()))
        heap = shlex.split(self.services["kafka"]["environment"]["KAFKA_HEAP_OPTS"])
        program = [str(java.find().executable), *heap, "-cp", class_path]
        arguments = format_[2].replace("/sluice/", f"{mine}/")
        subprocess.run([*program, format_[1], arguments], check=True, stdout=subprocess.DEVNULL)
        return self.spawn("kafka", [*program, "kafka.Kafka", start[2].replace("/sluice/", f"{mine}/")], {})

    def spawn(self, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (
            (self.folder.parent / f"{name}.out").open("wb") as out,
            (self.folder.parent / f"{name}.err").open("wb") as err,
        ):
            process = subprocess.Popen(
                command, env={**ENVIRONMENT, **environment}, stdout=out, stderr=err, cwd=ROOT
            )
        self.processes[name] = process
        return process

    def said(self, name: str) -> str:
        return "".join((self.folder.parent / f"{name}.{end}").read_text() for end in ("out", "err"))

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    compose = Compose(tmp_path / "stack")
    yield compose
    compose.stop()


def test_the_file_names_every_role_and_gives_each_its_own_folder(compose: Compose) -> None:
    assert set(compose.services) == ALL
    ours = {name: service for name, service in compose.services.items() if "build" in service}
    assert set(ours) == ALL - {"kafka"}
    assert compose.services["kafka"]["image"] == f"apache/kafka:{jars.KAFKA_VERSION}"
    assert all("ports" not in service for service in compose.services.values())
    folders = [compose.volume(name, "/var/lib/sluice") for name in ours]
    assert len(set(folders)) == len(folders)
    extras = {name: service["build"].get("args", {}).get("EXTRAS", "") for name, service in ours.items()}
    assert extras["subscribe"] == ""
    assert "trainers" not in extras["publish"] + extras["share"]


@pytest.mark.timeout(280)
def test_every_service_does_its_work(compose: Compose) -> None:
    assert compose.start("prepare").wait(60) == 0, compose.said("prepare")
    again = {file: file.read_bytes() for file in compose.folder.rglob("*") if file.is_file()}
    assert compose.start("prepare").wait(60) == 0
    assert again == {file: file.read_bytes() for file in compose.folder.rglob("*") if file.is_file()}
    for role in ("producer", "share", "trainer", "subscriber", "ops"):
        assert [file.name for file in (compose.folder / "roles" / role / "secrets").iterdir()] == [role]
    assert all(file.stat().st_mode & 0o077 == 0 for file in again)

    compose.start_kafka()
    compose.start("registry")
    assert compose.start("open").wait(120) == 0, compose.said("open") + compose.said("registry")
    for name in ("share", "train", "subscribe", "lag"):
        compose.start(name)
    assert compose.start("publish").wait(120) == 0, compose.said("publish")
    assert json.loads(compose.said("publish").splitlines()[-1])["published"] > 0

    signs = {"share": '"shared"', "train": '"release"', "subscribe": '"value"', "lag": "share.traffic"}
    end = time.monotonic() + 120
    while missing := {name for name, sign in signs.items() if sign not in compose.said(name)}:
        assert time.monotonic() < end, {name: compose.said(name)[-2000:] for name in missing}
        dead = {name for name in missing if compose.processes[name].poll() is not None}
        assert not dead, {name: compose.said(name)[-2000:] for name in dead}
        time.sleep(0.5)
