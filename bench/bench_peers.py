"""The share hop beside its peers, in one run on one embedded broker. The last line is one JSON object.

    python -m bench.bench_peers [--only ours,kafka_streams] [--events 1000000]
        [--size 39|400] [--partitions N] [--rounds N]

Each engine decodes the same events, puts discrete noise on one field, maps two, encodes and sends; ours does it in
full (ledger, keyed exact noise, mapping, dead-letter path, exactly-once). What is measured stands in
bench/peers/arena.py and latency.py, how each peer was tuned in its own program. The peers that go record by record in
Python get 200,000 events at most and plain Faust 100,000. An engine that cannot be had, or that does not bring out what
went in, gives null and its reason under `problems`; the others go on. With several rounds every second one goes
through the engines backwards, since who comes later meets a broker with warmer code and more on its disk; of each
engine the round of median events/s counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Table

from bench.peers import jdk
from bench.peers.arena import SIZES, Arena, FailedError, UnavailableError, throughput
from bench.peers.engines import ENGINES, environment
from bench.peers.latency import latency
from schemas.errors import SluiceError
from sluice.stack.home import Home
from sluice.stack.supervisor import Stack

Figures = dict[str, dict[str, Any]]
LEAST_COMMIT_MS = 5
WARMER, WARMING_EVENTS = "confluent", 500_000


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    names = [engine.name for engine in ENGINES]
    parser = argparse.ArgumentParser(prog="bench-peers", description="The share hop beside its peers.")
    parser.add_argument("--only", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--events", type=int, default=1_000_000, help="for the fast engines")
    parser.add_argument("--size", type=int, choices=sorted(SIZES), default=39, help="bytes of an event")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument(
        "--codec", choices=["own", "fastavro"], default="own", help="of the Python peers; see hop.py"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often; the median counts")
    parser.add_argument("--no-latency", action="store_true", help="only events/s")
    found = parser.parse_args(given)
    found.only = [name for name in found.only.split(",") if name]
    if unknown := set(found.only) - set(names):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    if not 1 <= found.events <= 1_000_000:
        parser.error("--events is between 1 and 1,000,000: each of 100,000 units has 10")
    if found.partitions < 1 or found.rounds < 1:
        parser.error("--partitions and --rounds are at least 1")
    return found


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round of median events/s (of two the slower), with the rates of all; or the first that has a problem."""
    for figures in rounds:
        if "problem" in figures:
            return figures
    found = sorted(rounds, key=lambda figures: figures["events_per_s"])[(len(rounds) - 1) // 2]
    return {**found, "rounds": [figures["events_per_s"] for figures in rounds]}


def run(
    arena: Arena,
    only: list[str],
    events: int,
    with_latency: bool,
    tell: Callable[[str], None],
    rounds: int = 1,
) -> Figures:
    """What each engine did, by name; `problem` where it did not."""
    found: Figures = {}

    def attempt(name: str, what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        tell(f"{name} ...")
        try:
            figures = what()
        except (FailedError, UnavailableError, SluiceError) as problem:
            figures = {"problem": str(problem)}
        except KafkaException as problem:
            figures = {"problem": f"the bench's own client: {problem.args[0].str()}"}
        tell(f"{name}: {', '.join(f'{key} {value}' for key, value in figures.items())}")
        return figures

    engines = [engine for engine in ENGINES if engine.name in only]
    for engine in ENGINES:
        if engine.name == WARMER:  # the first to come would pay for a broker whose code is not compiled yet
            warming = replace(engine, name="warming")
            attempt("the broker's warm-up, not counted", partial(throughput, arena, warming, WARMING_EVENTS))
    every: dict[str, list[dict[str, Any]]] = {engine.name: [] for engine in engines}
    for number in range(rounds):
        for engine in reversed(engines) if number % 2 else engines:
            named = replace(engine, name=f"{engine.name}_{number}")
            every[engine.name].append(attempt(engine.title, partial(throughput, arena, named, events)))
    found |= {name: median(figures) for name, figures in every.items()}
    for engine in engines if with_latency else []:
        if engine.name in ("ours", "kafka_streams") and "problem" not in found[engine.name]:
            name = f"{engine.title}, latency"
            found[f"{engine.name}_latency"] = attempt(name, partial(latency, arena, engine, engine.name))
    if interval := found.get("ours_latency", {}).get("commit_interval_ms"):
        commit_ms = max(LEAST_COMMIT_MS, round(interval))
        for engine in engines:
            if engine.name == "kafka_streams" and "problem" not in found[engine.name]:
                same = replace(engine, command=partial(jdk.command, commit_ms=commit_ms))
                name = f"{engine.title} with a commit every {commit_ms} ms as ours, latency"
                found["kafka_streams_same"] = attempt(
                    name, partial(latency, arena, same, "kafka_streams_same")
                )
    return found


def result(found: Figures) -> dict[str, Any]:
    """The JSON object: what was not measured is null."""

    def figure(name: str, key: str) -> Any:
        return found.get(name, {}).get(key)

    ours = figure("ours", "events_per_s")
    rates = {engine.name: figure(engine.name, "events_per_s") for engine in ENGINES}
    ratios = {
        f"ratio_{name}": round(ours / rate, 2) if ours and rate else None
        for name, rate in rates.items()
        if name != "ours"
    }
    return {
        **ratios,
        "cpu_s_per_million": figure("ours", "cpu_s_per_million"),
        "kafka_streams_cpu_s_per_million": figure("kafka_streams", "cpu_s_per_million"),
        "broker_cpu_s_per_million": figure("ours", "broker_cpu_s_per_million"),
        "p50_ms": figure("ours_latency", "p50_ms"),
        "p99_ms": figure("ours_latency", "p99_ms"),
        "commit_interval_ms": figure("ours_latency", "commit_interval_ms"),
        "kafka_streams_p50_ms": figure("kafka_streams_latency", "p50_ms"),
        "kafka_streams_p99_ms": figure("kafka_streams_latency", "p99_ms"),
        "kafka_streams_same_interval_p99_ms": figure("kafka_streams_same", "p99_ms"),
        "events_per_s": rates,
        "events": {engine.name: figure(engine.name, "events") for engine in ENGINES},
        "rounds": {engine.name: figure(engine.name, "rounds") for engine in ENGINES},
        "problems": {name: figures["problem"] for name, figures in found.items() if "problem" in figures},
    }


def table(found: Figures) -> Table:
    """One line an engine."""
    columns = [
        "",
        "delivery",
        "events",
        "events/s",
        "ours is",
        "CPU s / million",
        "broker's",
        "p50 ms",
        "p99 ms",
    ]
    shown = Table(*columns, title="the same hop, one broker")
    for column in shown.columns[2:]:
        column.justify = "right"
    ours = found.get("ours", {}).get("events_per_s")
    for engine in ENGINES:
        if engine.name not in found:
            continue
        figures, late = found[engine.name], found.get(f"{engine.name}_latency", {})
        if "problem" in figures:
            shown.add_row(engine.title, engine.delivery, "none, see above")
            continue
        rate = figures["events_per_s"]
        shown.add_row(
            engine.title,
            engine.delivery,
            f"{figures['events']:,}",
            f"{rate:,}",
            f"{ours / rate:.1f} x" if ours and engine.name != "ours" else "",
            f"{figures['cpu_s_per_million']:.2f}",
            f"{figures['broker_cpu_s_per_million']:.2f}",
            *(str(late.get(key, "")) for key in ("p50_ms", "p99_ms")),
        )
    return shown


def main() -> None:
    given = arguments()
    environment()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        folder = Path(name)
        stack = Stack(Home(folder / "home"))
        stack.start()
        try:
            arena = Arena(stack, folder, given.size, given.partitions, given.codec)
            found = run(
                arena,
                given.only,
                given.events,
                not given.no_latency,
                lambda line: print(line, flush=True),
                given.rounds,
            )
        finally:
            stack.stop()
    console.print(table(found))
    print(
        json.dumps(
            {"size": given.size, "partitions": given.partitions, "codec": given.codec, **result(found)}
        )
    )


if __name__ == "__main__":
    main()
