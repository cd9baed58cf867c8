"""How the share hop grows: with events, with units, and how long a killed worker takes to have its ledger back.

    python -m bench.bench_scale [events]

First a tenth of `events` (default 10,000,000), then all of them, of 100,000 units each: time should grow with them and
memory should not. Then 1,000,000 units with one event each: what the process holds more, a unit, than for 100,000;
and, after SIGKILL, the seconds from the start of the next process until it has read its state back (its own import of
1 s included). The clock runs from the worker's first commit to its last. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.passes import CONTRACT, Raw, Reader, cpu_seconds, events
from schemas.contract import parse
from sluice.stack.home import Home
from sluice.stack.provision import open_contract
from sluice.stack.supervisor import Stack

PIECE = 100_000


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rounds(total: int, units: int) -> Iterator[pa.RecordBatch]:
    """`total` events: each unit once in each slot, in random order within a slot."""
    rng = np.random.default_rng(5)
    for slot in range(-(-total // units)):
        order = rng.permutation(units)[: min(units, total - slot * units)]
        for at in range(0, len(order), PIECE):
            some = order[at : at + PIECE]
            yield events(some, np.full(len(some), slot), slot)


def start(stack: Stack, file: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sluice.cli.main", "share", str(file), "--json"]
    return subprocess.Popen([*command, "--home", str(stack.home.path)], stderr=log.open("wb"))


def grown(stack: Stack, folder: Path, name: str, total: int, units: int, recover: bool) -> dict[str, Any]:
    """One contract of its own, filled; its worker's time and memory; with `recover`, killed and started again."""
    text = CONTRACT.replace("bench.passes", name)
    text = text.replace("epsilon: 10", "epsilon: 100").replace("max: 10,", "max: 100,")
    file = folder / f"{name}.yaml"
    file.write_text(text)
    contract, admin = parse(text), stack.connection("admin")
    opened = open_contract(contract, admin)
    raw, reader = Raw(admin, contract, opened), Reader(admin, f"share.{contract.contract}")
    topic = contract.topics.raw
    with raw.transaction():
        raw.clock()
    for batch in rounds(total, units):
        with raw.transaction():
            raw.write(batch)
    worker = start(stack, file, folder / f"{name}.log")
    try:
        reader.wait(topic, 1, worker)
        used, began, first = cpu_seconds(worker.pid), time.perf_counter(), reader.committed(topic)
        reader.wait(topic, reader.end(topic) - 1, worker, 900)
        wall, used = time.perf_counter() - began, cpu_seconds(worker.pid) - used
        counted = total - first
        found: dict[str, Any] = {
            "events": total,
            "units": units,
            "seconds": round(wall, 2),
            "events_per_s": round(counted / wall),
            "cpu_s_per_million": round(used / counted * 1e6, 2),
            "rss_mb": round(rss_bytes(worker.pid) / 1e6),
        }
        if recover:
            worker.kill()
            worker.wait()
            log, began = folder / f"{name}.again.log", time.perf_counter()
            worker = start(stack, file, log)
            while b'"restored"' not in log.read_bytes():
                if worker.poll() is not None or time.perf_counter() - began > 120:
                    raise SystemExit("the worker did not come back: " + log.read_text()[-2000:])
                time.sleep(0.02)
            found["recovery_s"] = round(time.perf_counter() - began, 2)
            found["rss_mb_recovered"] = round(rss_bytes(worker.pid) / 1e6)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    return found


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    os.environ["PYTHONPATH"] = str(Path.cwd())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = Stack(Home(folder / "home"))
        stack.start()
        try:
            found = {}
            for label, count, units, recover in (
                ("tenth", total // 10, 100_000, False),
                ("whole", total, 100_000, False),
                ("million_units", 1_000_000, 1_000_000, True),
            ):
                found[label] = grown(stack, folder, f"bench.{label.replace('_', '-')}", count, units, recover)
                print(f"{label}: {found[label]}", flush=True)
        finally:
            stack.stop()
    tenth, whole, many = found["tenth"], found["whole"], found["million_units"]
    figures = {
        **found,
        "time_per_event_ratio": round(tenth["events_per_s"] / whole["events_per_s"], 3),
        "memory_ratio": round(whole["rss_mb"] / tenth["rss_mb"], 3),
        "bytes_per_unit": round((many["rss_mb"] - tenth["rss_mb"]) * 1e6 / (many["units"] - tenth["units"])),
        "recovery_s": many["recovery_s"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
