"""Writing an ONNX graph node by node, so that formulas read like formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8  # read by every onnxruntime since 1.12
TYPES = {
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
}
Name = str
Ends = dict[Name, tuple[Any, list[Any]]]  # inputs or outputs: name -> (numpy type, shape)
Given = str | int | float | NDArray[Any]  # a value's name, or a constant


class Nodes:
    """`g("Add", a, b)` writes a node and returns the name of its one output. Numbers become constants."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[Name, onnx.TensorProto] = {}

    def __call__(self, kind: str, *inputs: Given, named: Name | None = None, **attributes: Any) -> Name:
        output = named or f"{kind.lower()}_{len(self._nodes)}"
        names = [self._name(given) for given in inputs]
        self._nodes.append(helper.make_node(kind, names, [output], name=f"node_{output}", **attributes))
        return output

    def keep(self, name: Name, array: NDArray[Any]) -> Name:
        """An initializer under its own name: a part of the model, readable in the file."""
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def double(self, value: Given) -> Name:
        return self("Cast", value, to=TensorProto.DOUBLE)

    def column(self, value: Given) -> Name:
        """[N] -> [N, 1]."""
        return self("Unsqueeze", value, np.array([-1]))

    def flat(self, value: Given) -> Name:
        """[N, 1] -> [N]."""
        return self("Squeeze", value, np.array([-1]))

    def total(self, value: Given) -> Name:
        """Sum over the last axis."""
        return self("ReduceSum", value, np.array([-1]), keepdims=0)

    def model(self, title: str, inputs: Ends, outputs: Ends) -> bytes:
        """The serialized model. Equal graphs give equal bytes."""

        def described(ends: Ends) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, TYPES[np.dtype(kind)], shape)
                for name, (kind, shape) in ends.items()
            ]

        graph = helper.make_graph(
            self._nodes, title, described(inputs), described(outputs), list(self._initializers.values())
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, producer_name="sluice", ir_version=IR_VERSION, opset_imports=[opset])
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _name(self, given: Given) -> Name:
        if isinstance(given, str):
            return given
        array = np.asarray(given, np.int64 if isinstance(given, int) else None)
        return self.keep(f"constant_{len(self._initializers)}", array)
