"""PeMS, one step ahead: how good is a forecaster that is fed only with noised counts? One JSON object on
stdout.

    python -m bench.forecast [--data FOLDER] [--epsilon 0.5] [--seed 0]

Data: `traffic/pems_train.csv` (7,776 rows) then `pems_test.csv` (4,320 rows), weekdays of January to March
2016 in local time; without a folder the same rows from producers/samples/pems.parquet. The stream runs
through the train weeks and then the test weeks; at every step the learner forecasts the next slot first
and learns when the label arrives. What it is fed: two-sided geometric noise, alpha = e^-epsilon (0.5:
epsilon 1 a day, at most 2 passes), clamped to 0..256. It never sees a true count, nor is anything fitted
to one.

Scored on the true counts of all 4,320 test rows, each with the forecast issued after the row before it (the
published figures leave out the first 12 rows, which their windows need: `mae_published_rows`). Six rows
follow a gap of whole days; their forecast was issued for the first slot of that gap, the same time of day.
The demo leaves those out (4,314 exact slots; its persistence is 8.33, not 8.32).

    mae, rmse            mixture, fed with noised counts, online to the end
    mae_without_noise    the same run fed with the true counts; noise_cost = mae / mae_without_noise - 1
    mae_published_rows   the same over the 4,308 rows that the published figures are of
    mae_persistence      the true count of the row before
    mae_seasonal_naive   same slot of the last such weekday, from true counts
    mae_experts          each expert of the noised run
    mae_frozen           the graph exported after the train weeks; weights, profile, mixture and bounds stand still,
                         only its context of noised counts moves (published, frozen, fed with true counts: 7.06 to 7.21)
    coverage             of the 90 % interval, on noised labels: what production can see
    coverage_truth, interval_score   the same intervals on the truth
    seconds              CPU of the noised run; seconds_import is what importing torch takes
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from trainers import spec as specs
from trainers.learner import Learner
from trainers.recent import interval_score
from trainers.spec import EXPERTS, Public, TaskSpec
from trainers.windows import Windows

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
TIME, COUNT = "5 Minutes", "Lane 1 Flow (Veh/5 Minutes)"
TRAIN_ROWS, KEY = 7_776, "d-401190"
LAGS = 12  # of the published models; their first test row is the 13th
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """Forecast i was issued after row i: value [N], quantiles [N, 3], experts [N, 3]; `graph` after the
    train weeks.
    """

    value: Floats
    quantiles: Floats
    experts: Floats
    graph: bytes
    seconds: float


def rows(folder: Path | None) -> tuple[NDArray[np.int64], Floats]:
    """Slots (5 minutes since 1970, UTC) and true counts, in order of time."""
    if folder is not None and (folder / "traffic" / "pems_test.csv").exists():
        table: list[tuple[str, float]] = []
        for name in ("pems_train.csv", "pems_test.csv"):
            with (folder / "traffic" / name).open(encoding="utf-8-sig", newline="") as file:
                table += [(row[TIME], float(row[COUNT])) for row in csv.DictReader(file)]
    else:
        import pyarrow.parquet as pq

        parquet = pq.read_table(
            ROOT / "producers" / "samples" / "pems.parquet", columns=[TIME, COUNT]
        ).to_pydict()
        table = list(zip(parquet[TIME], map(float, parquet[COUNT]), strict=True))
    zone = ZoneInfo("America/Los_Angeles")
    times = (datetime.strptime(text, "%d/%m/%Y %H:%M").replace(tzinfo=zone) for text, _ in table)
    slots = np.array([int(when.timestamp()) // 300 for when in times], np.int64)
    return slots, np.array([count for _, count in table])


def noised(counts: Floats, epsilon: float, seed: int, upper: float) -> Floats:
    """Counts plus two-sided geometric noise of sensitivity 1, clamped to 0..upper."""
    rng = np.random.default_rng(seed)
    stop = 1 - np.exp(-epsilon)
    noise = rng.geometric(stop, len(counts)) - rng.geometric(stop, len(counts))
    return np.clip(counts + noise, 0, upper)


def run(task: TaskSpec, public: Public, slots: NDArray[np.int64], values: Floats, batch: int = 32) -> Run:
    """Online through all rows, in small batches as a stream brings them."""
    learner = Learner(task, public, seed=1)
    start, graph, parts = time.process_time(), b"", []
    borders = sorted({*range(0, len(slots), batch), TRAIN_ROWS, len(slots)})
    for a, b in pairwise(borders):
        if a == TRAIN_ROWS:
            graph = learner.export_onnx()
        parts.append(learner.step([KEY] * (b - a), slots[a:b], values[a:b]))
    value, quantiles, experts = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "quantiles", "experts")
    )
    return Run(value, quantiles, experts, graph, time.process_time() - start)


def frozen(graph: bytes, task: TaskSpec, slots: NDArray[np.int64], values: Floats) -> Floats:
    """The graph's forecast after every row, its context moving, everything else as of the export."""
    import onnxruntime

    windows, row = Windows(task.context, task.held_out), np.zeros(1, np.intp)
    windows.grow(1)
    contexts = np.empty((len(slots), task.context), np.float32)
    for i in range(len(slots)):
        for _ in windows.push(row, slots[i : i + 1], values[i : i + 1]):
            pass
        contexts[i] = windows.contexts(row)[0]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = {"row": np.zeros(len(slots), np.int64), "slot": slots, "values": contexts}
    answer: Floats = session.run(["value"], feed)[0]
    return answer


def measure(folder: Path | None, epsilon: float, seed: int) -> dict[str, Any]:
    """All figures of the docstring."""
    task = specs.load(ROOT / "trainers" / "tasks" / "traffic.yaml")
    alpha = np.exp(-epsilon)
    public = Public(0.0, 256.0, float(2 * alpha / (1 - alpha) ** 2))
    slots, truth = rows(folder)
    shared = noised(truth, epsilon, seed, public.upper)
    start = time.process_time()
    import torch  # noqa: F401

    imported = time.process_time() - start
    private, clear = run(task, public, slots, shared), run(task, public, slots, truth)
    still = frozen(private.graph, task, slots, shared)

    target = np.arange(TRAIN_ROWS, len(truth))
    label, before = truth[target], target - 1

    def mae(forecast: Floats, first: int = 0) -> float:
        return round(float(np.abs(forecast[before] - label)[first:].mean()), 4)

    low, high = private.quantiles[before, 0], private.quantiles[before, 2]

    def coverage(labels: Floats) -> float:
        return round(float(((labels >= low) & (labels <= high)).mean()), 4)

    mixture, without = mae(private.value), mae(clear.value)
    return {
        "rows": len(target),
        "epsilon_per_record": epsilon,
        "mae": mixture,
        "rmse": round(float(np.sqrt(((private.value[before] - label) ** 2).mean())), 4),
        "mae_published_rows": mae(private.value, LAGS),
        "mae_without_noise": without,
        "noise_cost": round(mixture / without - 1, 4),
        "mae_persistence": mae(truth),
        "mae_seasonal_naive": mae(clear.experts[:, EXPERTS.index("seasonal_naive")]),
        "mae_experts": {name: mae(private.experts[:, i]) for i, name in enumerate(EXPERTS)},
        "mae_frozen": mae(still),
        "coverage": coverage(shared[target]),
        "coverage_truth": coverage(label),
        "interval_score": round(interval_score(low, high, label, task.levels), 3),
        "seconds": round(private.seconds, 2),
        "seconds_import": round(imported, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="PeMS, one step ahead, fed with noised counts only.")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder that holds traffic/pems_*.csv")
    parser.add_argument("--epsilon", type=float, default=0.5, help="of one record")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    given = parser.parse_args()
    json.dump(measure(given.data, given.epsilon, given.seed), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
