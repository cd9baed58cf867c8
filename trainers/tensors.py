"""Arrays as safetensors files, read with nothing but numpy, so that a subscriber needs no further package.

Format: u64 little-endian length of a JSON header, the header, then the raw little-endian bytes; the header
maps a name to `{"dtype", "shape", "data_offsets": [begin, end]}`. The format cannot carry code. Oracle in the
tests: the `safetensors` package, which also does the writing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
HEADER_LIMIT = 64 << 20  # 100,000 keys of 100 bytes need a sixth of it
MOST_ARRAYS, MOST_AXES = 4096, 8  # a release has some dozens, of three axes
META = "sluice"  # one entry only: the package writes several in a random order


def dump(arrays: Mapping[str, np.ndarray[Any, Any]], meta: Any = None) -> bytes:
    """`arrays` as one safetensors file; equal input gives equal bytes. `meta` is anything that JSON can say.

    Needs the `safetensors` package (extra `trainers`).
    """
    from safetensors.numpy import save

    # The package takes the memory as it lies: a transposed view would be stored wrongly, without an error.
    packed = {name: np.array(array, order="C", copy=True) for name, array in arrays.items()}
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return bytes(save(packed, metadata={META: text}))


def load(data: bytes) -> tuple[Arrays, Any]:
    """The arrays (read-only views into `data`) and the meta of `dump`. Raises ValueError on any damage."""
    if len(data) < 8:
        raise ValueError("shorter than its own header")
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_LIMIT or 8 + length > len(data):
        raise ValueError("header longer than the file")
    header = _json(data[8 : 8 + length])
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise ValueError("header is no object, or names too many arrays")
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict) or not isinstance(meta.get(META, ""), str):
        raise ValueError("metadata is no object of texts")
    body, arrays = memoryview(data)[8 + length :], Arrays()
    for name, entry in header.items():
        arrays[name] = _array(entry, body)
    return arrays, _json(meta[META]) if META in meta else None


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _array(entry: Any, body: memoryview) -> np.ndarray[Any, Any]:
    try:
        dtype = np.dtype(DTYPES[entry["dtype"]])
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"bad entry: {type(problem).__name__}") from None
    # Before they are multiplied: 16,000 axes of 4,000 digits each keep a processor busy for hours.
    if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n < 1 << 40 for n in (*shape, begin, end)):
        raise ValueError("bad entry: shape or offsets")
    count = math.prod(shape)
    if not 0 <= begin <= end <= len(body) or end - begin != count * dtype.itemsize:
        raise ValueError("shape and offsets disagree")
    return np.frombuffer(body[begin:end], dtype).reshape(shape)
