"""Small releases for tests: a real ONNX graph, real files, a real signature; no trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainers.manifest import (
    CARD,
    CONTEXT,
    GRAPH,
    WEIGHTS,
    File,
    Manifest,
    Metric,
    Source,
    Terms,
    chunk_key,
    seal,
    split,
)
from trainers.signing import Signer
from trainers.tensors import dump

SIGNER = Signer.from_seed(bytes(range(32)))
OTHER = Signer.from_seed(bytes(range(1, 33)))
SOURCE: Source = ("cluster-a", "traffic.shared.v1", 0)
LEVELS = (0.05, 0.5, 0.95)


def graph(spread: float = 2.0, bias: float = 0.0) -> bytes:
    """value = mean of four values + bias; quantiles are `spread` around it; one expert, the last value."""
    nodes = [
        helper.make_node("ReduceMean", ["values", "axis"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "bias"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["value"]),
        helper.make_node("Add", ["column", "offsets"], ["quantiles"]),
        helper.make_node("Gather", ["values", "last"], ["experts"], axis=1),
    ]
    tensors = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
        helper.make_tensor("offsets", TensorProto.FLOAT, [1, 3], [-spread, 0, spread]),
        helper.make_tensor("last", TensorProto.INT64, [1], [3]),
    ]
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("experts", TensorProto.FLOAT, ["N", 1]),
        ],
        tensors,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def context(keys: Sequence[str] = ("a", "b"), slot: int = 100) -> bytes:
    rows = len(keys)
    values = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
    return dump({"values": values, "slot": np.full(rows, slot)}, {"keys": list(keys)})


@dataclass(frozen=True)
class Made:
    """One release as it goes over the wire."""

    manifest: Manifest
    value: bytes
    chunks: dict[str, bytes]


def make(
    version: int = 1,
    offset: int = 100,
    *,
    task: str = "toy",
    signer: Signer = SIGNER,
    files: Mapping[str, bytes] | None = None,
    schema_id: int = 7,
    sources: Mapping[Source, int] | None = None,
    **more: Any,
) -> Made:
    contents = {GRAPH: graph(), WEIGHTS: dump({"w": np.ones(3)}), CONTEXT: context(), CARD: b"# card\n"}
    contents |= files or {}
    fields: dict[str, Any] = {
        "task": task,
        "version": version,
        "parent": None,
        "as_of_ms": 100 * 300_000,
        "sources": sources or {SOURCE: offset},
        "contracts": (Terms("traffic", "1.0.0", "did:web:x", "vehicle", "1.0", "ab" * 32),),
        "target": "vehicles",
        "unit": "vehicles",
        "step_ms": 300_000,
        "horizon": 1,
        "season": (288, 2016),
        "levels": LEVELS,
        "experts": ("last",),
        "metrics": (Metric("mixture", 6.5, 288),),
        "keys": 2,
        "files": tuple(File.of(name, content) for name, content in contents.items()),
    } | more
    manifest = Manifest(**fields)
    chunks = {
        chunk_key(manifest.release, name, index): piece
        for name, content in contents.items()
        for index, piece in enumerate(split(content))
    }
    return Made(manifest, seal(manifest, signer, schema_id), chunks)
