"""Who competes, and how each is started."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers import jdk, venvs
from bench.peers.arena import Engine, Task

ROOT = Path(__file__).parents[2]


def ours(task: Task) -> list[str]:
    """In full, as shipped: ledger, exact noise, mapping, dead-letter path, exactly-once."""
    words = ["share", str(task.contract_file), "--home", str(task.home)]
    return [sys.executable, "-m", "sluice.cli.main", *words]


def loop(task: Task) -> list[str]:
    return [sys.executable, "-m", "bench.peers.loop.app", told(task)]


def in_its_own(peer: str, task: Task) -> list[str]:
    return [venvs.python_of(peer), "-m", f"bench.peers.{peer}.app", told(task)]


def told(task: Task) -> str:
    """The file that a Python peer reads (see hop.py). It holds the password, in the task's private folder."""
    found: dict[str, Any] = {
        "client": task.admin.settings(),
        "group": task.group,
        "raw": task.contract.topics.raw,
        "shared": task.contract.topics.shared,
        "raw_id": task.raw_id,
        "shared_id": task.shared_id,
        "partitions": task.partitions,
        "folder": str(task.folder),
        "codec": task.codec,
        "raw_schema": task.contract.raw_schema,
        "shared_schema": task.contract.shared_schema,
    }
    file = task.folder / "task.json"
    file.write_text(json.dumps(found))
    return str(file)


EXACTLY, LEAST = "exactly once", "at least once"
SLOW = 200_000

ENGINES = [
    Engine("ours", "Sluice, in full", ours, EXACTLY, transactions=True, clocked=True),
    Engine(
        "kafka_streams", "Kafka Streams, 1 thread", jdk.command, EXACTLY, transactions=True, warm=1_000_000
    ),
    Engine("confluent", "confluent-kafka loop", loop, EXACTLY, transactions=True),
    Engine("quix", "Quix Streams", partial(in_its_own, "quix"), LEAST, most=SLOW),
    Engine("bytewax", "Bytewax", partial(in_its_own, "bytewax"), "no promise", most=SLOW),
    Engine("faststream", "FastStream", partial(in_its_own, "faststream"), "at most once", most=SLOW),
    Engine("faust", "plain Faust", partial(in_its_own, "faust"), LEAST, most=100_000, late=True),
]


def environment() -> None:
    """What children inherit: our modules, wherever they run."""
    os.environ["PYTHONPATH"] = str(ROOT)
