"""Two workers as the StatefulSet of `sluice deploy kubernetes` starts them, without Kubernetes: its arguments, its
environment, a home each, one key folder for both, nothing written elsewhere.

Only what a container would change is changed: container paths to temporary ones, the brokers' address, and TLS, which
the embedded broker of the tests does not speak.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from schemas.partition import partition as home_of
from sluice.stack.kubernetes import Place
from sluice.stack.kubernetes_share import GRACE_SECONDS, HOME, worker
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import unique
from tests.integration.share_help import DAY_MS, ROOT, START_MS, Opening, opening
from tests.integration.test_three_brokers import CONTRACT, PARTITIONS, out_of

ROWS = 400
PATIENCE_SECONDS = 90


class Pod:
    """One replica as a process."""

    def __init__(self, template: dict[str, Any], ordinal: int, opened: Opening, folder: Path) -> None:
        (container,) = template["spec"]["template"]["spec"]["containers"]
        self.home, self.cwd = folder / f"home-{ordinal}", folder / f"cwd-{ordinal}"
        self.home.mkdir(mode=0o700)
        self.cwd.mkdir()
        (self.home / "keys").symlink_to(folder / "keys")
        stack = opened.stack
        here = {
            "SLUICE_HOME": str(self.home),
            "SLUICE_BOOTSTRAP": stack.admin.bootstrap,
            "SLUICE_PROTOCOL": "SASL_PLAINTEXT",
            "SLUICE_CA_FILE": "",
            "SLUICE_PASSWORD_FILE": str(stack.home / "secrets" / "share"),
            "SLUICE_REGISTRY_URL": stack.admin.registry_url or "",
            "SLOT": str(ordinal),
        }
        names = {each["name"] for each in container["env"]}
        assert names == {*here, "MALLOC_ARENA_MAX"}
        self.probe = [self._inside(word) for word in container["readinessProbe"]["exec"]["command"]]
        program, *words = [word.replace("$(SLOT)", str(ordinal)) for word in container["args"]]
        assert program == "sluice"
        words = [str(opened.file) if word == "/run/sluice/contract.yaml" else word for word in words]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self.log = folder / f"pod-{ordinal}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sluice.cli.main", *words],
                env={**outside, **here, "PYTHONPATH": str(ROOT)},
                cwd=self.cwd,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def _inside(self, word: str) -> str:
        return word.replace(HOME, str(self.home))

    def ready(self) -> bool:
        return subprocess.run(self.probe, check=False).returncode == 0

    def wait_for(self, sign: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sign not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.1)


@pytest.mark.slow
def test_replicas_share_the_work_with_one_noise_key(stack: RunningStack, tmp_path: Path) -> None:
    opened = opening(stack, tmp_path, CONTRACT.format(name=unique("pods.share")))
    text = opened.file.read_text()
    template = next(each for each in worker(opened.contract, text, Place()) if each["kind"] == "StatefulSet")
    (tmp_path / "keys").mkdir(mode=0o700)
    sent: dict[int, list[tuple[str, int]]] = {partition: [] for partition in range(PARTITIONS)}
    for partition in sent:
        opened.send([(b"clock", opened.clock(START_MS + DAY_MS // 2))], partition)
    pods: list[Pod] = []
    try:
        for ordinal in range(2):
            pods.append(Pod(template, ordinal, opened, tmp_path))
            assert pods[ordinal].ready() is (ordinal == 1)  # the first makes the key, the next finds it
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not pods[ordinal].ready():
                assert time.monotonic() < deadline, pods[ordinal].log.read_text()[-3000:]
                time.sleep(0.1)
        for pod in pods:
            pod.wait_for('"partitions": 1')  # one each
        records: dict[int, list[tuple[bytes | None, bytes | None]]] = {partition: [] for partition in sent}
        for row in range(ROWS):
            meter, at = f"meter-{row % 20:03d}", START_MS + row // 20 * 60_000
            value = opened.encode({"meter": meter, "at": at, "amount": row % 100})
            partition = home_of(meter.encode(), PARTITIONS)
            records[partition].append((meter.encode(), value))
            sent[partition].append((meter, at))
        for partition, values in records.items():
            opened.send(values, partition)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(opened.committed(partition) < len(sent[partition]) for partition in sent):
            assert time.monotonic() < deadline, [pod.log.read_text()[-2000:] for pod in pods]
            time.sleep(0.1)
        for pod in pods:
            pod.process.terminate()
        assert [pod.process.wait(GRACE_SECONDS) for pod in pods] == [0, 0]
    finally:
        for pod in pods:
            pod.process.kill()
            pod.process.wait()
    for partition, expected in sent.items():
        assert out_of(opened, partition, committed=True) == expected
    chains = [file for file in (tmp_path / "keys").glob("*.json") if '"root"' in file.read_text()]
    assert [file.stat().st_mode & 0o777 for file in chains] == [0o600]
    assert not any(list(pod.cwd.iterdir()) for pod in pods)  # the root file system may be read-only
