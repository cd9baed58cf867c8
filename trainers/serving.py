"""A release in use: the ONNX graph with the context of every key, and the forecast that comes out.

Needs the base install only (numpy, onnxruntime). The graph is the whole forecast, so a program in any
language can do what this file does: look the key's row up in `context.safetensors` and run `forecast.onnx` on
it.

    inputs   one per context array of the same name, float32 or int64, [N, ...]
    outputs  value [N], quantiles [N, Q] (levels as in the manifest), experts [N, E]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import FatalError
from trainers.inspection import require_flat
from trainers.manifest import CONTEXT, EPOCH, GRAPH, Manifest, RefusedError
from trainers.tensors import Arrays
from trainers.tensors import load as load_tensors

SLOT = "slot"  # context array int64[K]: slot of each key's newest observation; a graph may take it too


class UnknownKeyError(FatalError, KeyError):
    """The model has no context for this key."""

    __str__ = FatalError.__str__


@dataclass(frozen=True, slots=True)
class Forecast:
    """One forecast of one key: `value` for the slot `target`, made from shared values up to and including
    `as_of`.

    [low, high] holds the *shared* (noised) value with probability `level`; the true value is in it at least
    about as often. `epsilon` is the sum of the contracts' caps per unit and epoch (None: shared openly),
    `protects` their units.
    """

    task: str
    key: str
    value: float
    low: float
    high: float
    level: float
    as_of: datetime
    target: datetime
    version: int
    release: str
    epsilon: Decimal | None
    protects: str
    quantiles: tuple[tuple[float, float], ...]

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        promise = (
            f"epsilon {self.epsilon} per {self.protects}" if self.epsilon is not None else "shared openly"
        )
        return (
            f"{self.key}: {self.value:.1f} [{self.low:.1f}, {self.high:.1f}] ({self.level:.0%}) "
            f"for {_minute(self.target)}, as of {_minute(self.as_of)}, {self.task} v{self.version}, {promise}"
        )

    def json(self) -> str:
        """One line of JSON; times in ISO 8601, epsilon as a decimal string."""
        record: dict[str, Any] = {
            "task": self.task,
            "key": self.key,
            "value": self.value,
            "interval": [self.low, self.high],
            "level": self.level,
            "as_of": self.as_of.isoformat(),
            "target": self.target.isoformat(),
            "version": self.version,
            "release": self.release,
            "epsilon": None if self.epsilon is None else str(self.epsilon),
            "protects": self.protects,
            "quantiles": {f"{level:g}": value for level, value in self.quantiles},
        }
        return json.dumps(record, ensure_ascii=False)


class Graph:
    """An ONNX graph on one thread, without a memory arena: a subscriber is small."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def run(self, feed: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """value [N], quantiles [N, Q], experts [N, E]; extra entries of `feed` are left out."""
        value, quantiles, experts = self._session.run(
            ["value", "quantiles", "experts"], {name: feed[name] for name in self.inputs}
        )
        return value, quantiles, experts


class Model:
    """One verified release, loaded. Immutable, and safe to use from several threads."""

    def __init__(self, manifest: Manifest, graph: Graph, context: Arrays, keys: Sequence[str]) -> None:
        self.manifest = manifest
        self.graph = graph
        self._context = context
        self._rows = {key: row for row, key in enumerate(keys)}
        caps = [Decimal(terms.epsilon) for terms in manifest.contracts if terms.epsilon]
        if not all(cap.is_finite() and cap >= 0 for cap in caps):
            raise ValueError("a cap that is no number")
        self._epsilon = sum(caps, Decimal(0)) if caps else None
        self._protects = ", ".join(
            dict.fromkeys(terms.protects for terms in manifest.contracts if terms.protects)
        )

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def times(self, slot: int) -> tuple[datetime, datetime]:
        """When a key's newest slot began, and the slot that is forecast from it. Raises OverflowError."""
        as_of = EPOCH + timedelta(milliseconds=slot * self.manifest.step_ms)
        return as_of, as_of + timedelta(milliseconds=self.manifest.horizon * self.manifest.step_ms)

    def forecast(self, key: str) -> Forecast:
        """The forecast for `key`. Raises UnknownKeyError."""
        row = self._rows.get(key)
        if row is None:
            some = ", ".join(sorted(self._rows)[:5])
            more = f" and {len(self._rows) - 5} more" if len(self._rows) > 5 else ""
            raise UnknownKeyError(
                f"Task {self.manifest.task!r} has no key {key!r} in version {self.manifest.version}.",
                f"Known: {some}{more}." if some else "It has no keys yet.",
            )
        feed = {name: array[row : row + 1] for name, array in self._context.items()}
        value, quantiles, _ = self.graph.run(feed)
        m, levels, points = self.manifest, self.manifest.levels, [float(q) for q in quantiles[0]]
        as_of, target = self.times(int(self._context[SLOT][row]))
        return Forecast(
            task=m.task,
            key=key,
            value=float(value[0]),
            low=points[0],
            high=points[-1],
            level=round(levels[-1] - levels[0], 9),
            as_of=as_of,
            target=target,
            version=m.version,
            release=m.release,
            epsilon=self._epsilon,
            protects=self._protects,
            quantiles=tuple(zip(levels, points, strict=True)),
        )


def load(manifest: Manifest, files: Mapping[str, bytes]) -> Model:
    """Load a release's graph and context, and try it on up to 64 keys. Raises RefusedError, and nothing else."""
    try:
        context, meta = load_tensors(files[CONTEXT])
        keys = [str(key) for key in meta["keys"]]
        wrong = [name for name, array in context.items() if array.shape[:1] != (len(keys),)]
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise RefusedError("context-unusable", type(problem).__name__) from None
    if wrong or len(keys) != manifest.keys or SLOT not in context or len(set(keys)) != len(keys):
        raise RefusedError("context-unusable", "keys, manifest and arrays disagree")
    if context[SLOT].ndim != 1:
        raise RefusedError("context-unusable", "not one slot for each key")
    try:
        require_flat(files[GRAPH])
    except ValueError as problem:
        raise RefusedError("graph-unusable", str(problem)) from None
    try:
        graph = Graph(files[GRAPH])
        if missing := [name for name in graph.inputs if name not in context]:
            raise RefusedError("graph-unusable", f"no context for input {', '.join(missing)}")
        if not _probabilities(manifest.levels):
            raise RefusedError("graph-unusable", "levels that are no rising probabilities")
        if keys:
            _try(graph, {name: array[:64] for name, array in context.items()}, manifest)
    except RefusedError:
        raise
    except Exception as problem:  # onnxruntime's errors share no base class of their own
        raise RefusedError("graph-unusable", type(problem).__name__) from None
    try:
        model = Model(manifest, graph, context, keys)
        for slot in {int(edge(context[SLOT])) for edge in (np.min, np.max)} if keys else ():
            model.times(slot)
    except (ArithmeticError, TypeError, ValueError) as problem:  # an epsilon that is no number, a year 10,000
        raise RefusedError("context-unusable", type(problem).__name__) from None
    return model


def _probabilities(levels: Sequence[float]) -> bool:
    """Whether an interval can be told from these quantile levels."""
    pairs = zip((0.0, *levels), (*levels, 1.0), strict=True)
    return len(levels) >= 2 and all(low < high for low, high in pairs)


def _try(graph: Graph, feed: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
    value, quantiles, experts = graph.run(feed)
    n = len(feed[SLOT])
    if (value.shape, quantiles.shape) != ((n,), (n, len(manifest.levels))) or experts.shape != (
        n,
        len(manifest.experts),
    ):
        raise RefusedError("graph-unusable", "outputs of an unexpected shape")
    if not (np.isfinite(value).all() and np.isfinite(quantiles).all()):
        raise RefusedError("graph-unusable", "a forecast that is not a number")
    if (np.diff(quantiles, axis=1) < 0).any():
        raise RefusedError("graph-unusable", "quantiles that fall")


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ")
