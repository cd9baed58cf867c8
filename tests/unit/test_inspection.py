"""Graphs that a hostile signer would send; onnxruntime itself is the oracle of what they would do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.releases import graph
from trainers.inspection import MOST_FIELDS, require_flat

SECRET = np.array([1, 2, 3, 4], np.float32)


def anything(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def elsewhere(location: str) -> TensorProto:
    """Four weights that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> bytes:
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("i", TensorProto.INT64, [4]),
    ]
    made = helper.make_graph(nodes, "g", inputs, [anything("value")], weights)
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(found.SerializeToString())


def branch(location: str) -> bytes:
    taken = helper.make_graph(
        [helper.make_node("Gather", ["w", "i"], ["x"])], "t", [], [anything("x")], [elsewhere(location)]
    )
    other = helper.make_graph([helper.make_node("Cast", ["i"], ["y"], to=1)], "e", [], [anything("y")])
    return model([helper.make_node("If", ["c"], ["value"], then_branch=taken, else_branch=other)], [])


def test_our_own_graph_passes() -> None:
    require_flat(graph())


def test_a_branch_that_reads_a_file_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    monkeypatch.chdir(tmp_path)
    content = branch("secret")
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    read = session.run(None, {"c": np.array(True), "i": np.arange(4)})[0]
    assert (read == SECRET).all()  # it does; so:
    with pytest.raises(ValueError, match="a graph within the graph"):
        require_flat(content)


@pytest.mark.parametrize("location", ["secret", "../secret", "/etc/hostname"])
def test_weights_in_another_file(location: str) -> None:
    gather = helper.make_node("Gather", ["w", "i"], ["value"])
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere(location))
    for content in (model([gather], [elsewhere(location)]), model([constant, gather], [])):
        with pytest.raises(ValueError, match="weights in another file"):
            require_flat(content)


def test_functions_and_training_steps() -> None:
    with_function, with_training = (onnx.ModelProto.FromString(graph()) for _ in range(2))
    with_function.functions.add(name="f")
    with_training.training_info.add()
    for each in (with_function, with_training):
        with pytest.raises(ValueError, match=r"functions|training"):
            require_flat(each.SerializeToString())


def test_a_field_number_that_protobuf_would_cut_is_refused() -> None:
    """Field 6 (a graph) with a bit above the 32 that a tag has: to some readers of protobuf it is field 6."""
    disguised = varint(1 << 32 | 6 << 3 | 2) + b"\0"
    for tag in (b"\x2a", b"\x0a", b"\x3a"):  # model.graph.node.attribute
        disguised = tag + bytes([len(disguised)]) + disguised
    with pytest.raises(ValueError, match="no ONNX model"):
        require_flat(disguised)


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found, number = found + bytes([number & 0x7F | 0x80]), number >> 7
    return found + bytes([number])


@pytest.mark.parametrize(
    "content",
    [
        b"\x7a\x44\0\0ORTM" + bytes(64),  # onnxruntime's own format, in what protobuf would skip
        b"\x3b",  # a group
        b"\x3a\xff",  # cut
        b"\x3a\x05\0",  # longer than what is there
        b"\x38\x01",  # a number where the graph stands
        b"\xff" * 11,
    ],
)
def test_what_is_no_onnx_model(content: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX model"):
        require_flat(content)


def test_a_graph_of_millions_of_parts_is_not_walked_to_its_end() -> None:
    with pytest.raises(ValueError, match="too many"):
        require_flat(b"\x08\x00" * (MOST_FIELDS + 1))
