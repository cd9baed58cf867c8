"""The share hop against plain Faust, in one run on one broker. The last line is one JSON object.

    python -m bench.bench_share [events]

1,000,000 events of 39 bytes (the framed value), 100,000 units, 10 admitted events each, one partition, one process,
exactly-once: the shipped `sluice share`, with ledger, keyed noise, mapping and dead-letter path. The events are written
in one open transaction, so that a `read_committed` worker sees all of them at the moment it commits: the producer costs
the measurement nothing. CPU is user + system of the worker's process from then to the last commit, after a warm-up of
50,000 events. Plain Faust is the app of bench-peers, as fast as we know to make one: 100,000 events, at-least-once; its
clock runs from its first output to its last. bench/peers/arena.py measures both.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.passes import SLOTS, UNITS
from bench.peers.arena import Arena, throughput
from bench.peers.engines import ENGINES, environment
from sluice.stack.home import Home
from sluice.stack.supervisor import Stack


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else UNITS * SLOTS
    environment()
    engines = {engine.name: engine for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="bench-share-") as name:
        folder = Path(name)
        stack = Stack(Home(folder / "home"))
        stack.start()
        try:
            arena = Arena(stack, folder, size=39, partitions=1, codec="own")
            found = throughput(arena, engines["ours"], total)
            print(f"share: {found}", flush=True)
            plain = throughput(arena, engines["faust"], total)["events_per_s"]
        finally:
            stack.stop()
    ratio = found["events_per_s"] / plain
    print(json.dumps({**found, "plain_faust_events_per_s": plain, "ratio": round(ratio, 1)}))


if __name__ == "__main__":
    main()
