"""What a graph of another's may hold, looked at before onnxruntime loads it. Needs nothing but the bytes.

An ONNX file may name *other files* as its weights: signed bytes would then compute with whatever lies in the folder
where the app runs, and put it into forecasts. onnxruntime 1.22 to 1.31 read them inside the branch of an `If`. And
branches, loops and functions can run for ever. A forecast needs none of these: one flat graph, weights inside.

The walk follows the fields of onnx.proto3 (numbers below) that lead to tensors; protobuf's wire format is
tag (field << 3 | type), then a varint (0), 8 bytes (1), a length and bytes (2), 4 bytes (5).
"""

from __future__ import annotations

from collections.abc import Iterator

MOST_FIELDS = 200_000  # ours have some thousands; a walk over this many takes a fifth of a second
Part = tuple[str, memoryview]

# message: {field: the message in it}
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_REFUSED: dict[tuple[str, int], str] = {
    ("model", 20): "training steps",
    ("model", 25): "functions",
    ("attribute", 6): "a graph within the graph",
    ("attribute", 11): "a graph within the graph",
    ("tensor", 13): "weights in another file",
    ("tensor", 14): "weights in another file",
}


def require_flat(content: bytes) -> None:
    """Raises ValueError, saying why, where `content` is no ONNX model of one flat graph that holds its weights."""
    if content[4:8] == b"ORTM":  # onnxruntime's own format, which it tells by these bytes
        raise ValueError("no ONNX model")
    parts: list[Part] = [("model", memoryview(content))]
    seen = 0
    while parts:
        message, data = parts.pop()
        for field, value in _fields(data):
            seen += 1
            if seen > MOST_FIELDS:
                raise ValueError("too many parts")
            if reason := _REFUSED.get((message, field)):
                # data_location 0 says that the weights are inside
                if field != 14 or value != 0:
                    raise ValueError(reason)
            elif inner := _INSIDE[message].get(field):
                if not isinstance(value, memoryview):
                    raise ValueError("no ONNX model")
                parts.append((inner, value))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag >> 32:  # protobuf drops the bits above: field 6 with one of them set is field 6 to onnxruntime
            raise ValueError("no ONNX model")
        kind = tag & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:  # groups: not in onnx.proto3
            raise ValueError("no ONNX model")
        if size > len(data) - at:
            raise ValueError("no ONNX model")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no ONNX model")
