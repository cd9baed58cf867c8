"""A manifest says the same after a trip over the wire, and nothing else passes as one."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from tests.releases import OTHER, SIGNER, SOURCE, make
from trainers import tensors
from trainers.manifest import (
    CHUNK_BYTES,
    GRAPH,
    WEIGHTS,
    File,
    RefusedError,
    assemble,
    avro,
    require_newer,
    seal,
    signed_part,
    split,
    unseal,
)


def reason_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.reason


def test_a_manifest_survives_the_wire() -> None:
    made = make()
    assert unseal(made.value, SIGNER.public) == replace(made.manifest, public_key=SIGNER.public)
    assert made.manifest.release.startswith("00000001-")


def test_equal_manifests_have_equal_bytes() -> None:
    assert make().value == make().value


def test_any_avro_reader_understands_it() -> None:
    record: Any = schemaless_reader(io.BytesIO(make().value[5:]), avro("model_update"), None)
    assert record["task"] == "toy"
    assert record["contracts"][0]["epsilon"] == "1.0"
    assert len(record["signature"]) == 64


@given(st.data())
def test_every_changed_bit_is_noticed(data: st.DataObject) -> None:
    value = bytearray(make().value)
    value[data.draw(st.integers(5, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert reason_of(unseal, bytes(value), SIGNER.public) in {"signer-unknown", "signature-invalid"}


@given(st.integers(0, 2000))
def test_every_truncation_is_noticed(length: int) -> None:
    value = make().value
    if length < len(value):
        assert reason_of(unseal, value[:length], SIGNER.public) in {
            "manifest-unreadable",
            "signer-unknown",
            "signature-invalid",
        }


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(value: bytes) -> None:
    reason_of(unseal, value, SIGNER.public)


def test_another_signer_is_refused() -> None:
    assert reason_of(unseal, make(signer=OTHER).value, SIGNER.public) == "signer-unknown"


def test_the_key_in_the_manifest_does_not_help_a_forger() -> None:
    value = make(signer=OTHER).value
    forged = value[:-96] + SIGNER.public + value[-64:]
    assert reason_of(unseal, forged, SIGNER.public) == "signature-invalid"


def test_a_newer_schema_is_read_through_the_registry() -> None:
    newer = json.loads(json.dumps({k: v for k, v in avro("model_update").items() if not k.startswith("__")}))
    newer["fields"].insert(-2, {"name": "colour", "type": "string", "default": ""})
    schema = parse_schema(newer)
    old: Any = schemaless_reader(io.BytesIO(make().value[5:]), avro("model_update"), None)
    out = io.BytesIO()
    schemaless_writer(out, schema, old | {"colour": "blue", "public_key": SIGNER.public})
    body = out.getvalue()[:-64]
    value = b"\0\0\0\0\x09" + body + SIGNER.sign(signed_part(schema, body))
    assert unseal(value, SIGNER.public, {9: schema}.get).task == "toy"
    assert reason_of(unseal, value, SIGNER.public) == "signature-invalid"
    assert reason_of(unseal, value, SIGNER.public, {9: avro("model_ack")}.get) == "signature-invalid"


def test_sizes_that_do_not_fit_the_chunks_are_refused() -> None:
    manifest = make().manifest
    files = tuple(replace(f, size=f.size + CHUNK_BYTES) if f.name == GRAPH else f for f in manifest.files)
    value = seal(replace(manifest, files=files), SIGNER, 7)
    assert reason_of(unseal, value, SIGNER.public) == "manifest-unreadable"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_files_are_split_and_joined(size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    file, pieces = File.of(WEIGHTS, content), list(split(content))
    assert max(map(len, pieces)) <= CHUNK_BYTES
    assert assemble(file, pieces) == content


def test_a_tampered_chunk_is_named() -> None:
    file = File.of(WEIGHTS, b"weights")
    assert reason_of(assemble, file, [b"Weights"]) == "chunk-damaged"


def test_a_file_that_does_not_fit_its_own_hash_is_refused() -> None:
    file = replace(File.of(WEIGHTS, b"weights"), sha256=bytes(32))
    assert reason_of(assemble, file, [b"weights"]) == "file-damaged"


B = ("cluster-a", "other.shared.v1", 0)


@pytest.mark.parametrize(
    ("version", "sources", "accepted"),
    [
        (3, {SOURCE: 101}, True),
        (2, {SOURCE: 101}, False),  # the version does not rise
        (1, {SOURCE: 101}, False),
        (3, {SOURCE: 100}, False),  # nothing was learnt since
        (3, {SOURCE: 99}, False),
        (3, {SOURCE: 100, B: 1}, True),  # a further source
        (3, {B: 1}, False),  # a source is gone
        (3, {SOURCE: 99, B: 1}, False),
    ],
)
def test_only_what_follows_is_newer(version: int, sources: Any, accepted: bool) -> None:
    manifest = make(version, sources=sources).manifest
    if accepted:
        require_newer(manifest, 2, {SOURCE: 100})
    else:
        assert reason_of(require_newer, manifest, 2, {SOURCE: 100}) == "not-newer"


ARRAYS: tensors.Arrays = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "b": np.array(7, np.int64),
    "c": np.zeros((0, 3), np.float64),
    "d": np.array([True, False]),
    "e": np.arange(5, dtype=np.uint8),
}


def test_tensors_come_back_as_they_were() -> None:
    data = tensors.dump(ARRAYS, {"keys": ["é", "b"]})
    arrays, meta = tensors.load(data)
    oracle = safetensors.numpy.load(data)
    assert meta == {"keys": ["é", "b"]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        np.testing.assert_array_equal(oracle[name], array)
    assert data == tensors.dump(dict(reversed(ARRAYS.items())), {"keys": ["é", "b"]})


@given(st.data())
def test_damaged_tensors_raise_value_error_only(data: st.DataObject) -> None:
    content = bytearray(tensors.dump(ARRAYS, {"keys": ["a"]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        tensors.load(bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize(
    "shape",
    [
        [10**4000] * 8_000,  # their product alone takes hours
        [1] * 9,
        [1.0],
        ["1"],
        [True],
        [-1, -1],
        [1 << 62, 4],
    ],
)
def test_a_shape_is_judged_before_it_is_multiplied(shape: list[object]) -> None:
    entry = {"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, 1]}}
    header = json.dumps(entry).encode()
    with pytest.raises(ValueError, match="shape"):
        tensors.load(len(header).to_bytes(8, "little") + header + b"x")


def test_a_header_of_a_million_arrays_is_not_built() -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): empty for i in range(5_000)}).encode()
    with pytest.raises(ValueError, match="too many"):
        tensors.load(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"__metadata__": [1]}', b'{"__metadata__": {"sluice": 1}}']
)
def test_any_damage_of_the_header_is_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError):
        tensors.load(len(header).to_bytes(8, "little") + header)
