"""Hostile model releases: manifest, chunks, context, graph, pin, the trainer's record. Refused in the declared words,
or taken, and then every forecast is a number.

Input: one byte that chooses the part, then its bytes. What a signature covers is signed here, since a stranger may be
the first signer that a subscriber sees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
from fastavro import parse_schema

from schemas.errors import ConfigurationError, SluiceError
from tests import releases
from tests.fuzz.oracles import require
from trainers.checkpoint import HEAD, SHARD_BYTES, Recorder
from trainers.follower import Chunks, Follower, needed
from trainers.inspection import require_flat
from trainers.manifest import (
    CHUNK_BYTES,
    CONTEXT,
    FILE_LIMIT,
    GRAPH,
    RefusedError,
    Terms,
    avro_source,
    seal,
    signed_part,
)
from trainers.pins import Pin, _read
from trainers.serving import Model, load
from trainers.signing import KEY_BYTES, SIGNATURE_BYTES, read_public
from trainers.tensors import dump
from trainers.tensors import load as load_tensors

REASONS = frozenset(
    ("manifest-unreadable", "signer-unknown", "signature-invalid", "schema-unknown", "wrong-task", "format-unknown",
     "not-newer", "chunk-missing", "chunk-damaged", "file-damaged", "context-unusable", "graph-unusable")
)  # fmt: skip
FIRST = releases.make(version=1, offset=100)
GOOD = releases.make(version=2, offset=200)
GOOD_FILES = {GRAPH: releases.graph(), CONTEXT: releases.context()}
PARTS = (
    "signed",
    "unsigned",
    "newer schema",
    "context",
    "graph",
    "chunks",
    "pin",
    "key",
    "record",
    "tensors",
)
NEWER = 9  # id of a schema of tomorrow: one more field
WORDS = (
    b"values", b"slot", b"__metadata__", b"sluice", b'"F32"', b'"I64"', b'"shape"', b'"dtype"', b'"data_offsets"',
    b"[0,8]", b"[[", b"1e999", b"NaN", b"9" * 30, b"\\ud800", b"null", b'{"keys":["a","b"]}', b"forecast.onnx",
    b"context.safetensors", b"Infinity", b"/0000", b"/000000", b"-----BEGIN PUBLIC KEY-----\n", b"head", b"format",
    b"parts", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x32\x02", b"\x72\x02", b"\x70\x01", b"cccccc/\xff",
)  # fmt: skip
# What a signer could write into a manifest: fields of `releases.make` with values that stand at some edge.
ODD: dict[str, tuple[Any, ...]] = {
    "version": (0, -1, 1, 2, 3, 1 << 40, (1 << 63) - 1),
    "offset": (-1, 0, 99, 100, 101, (1 << 63) - 1),
    "task": ("toy", "", "other", "t" * 500, "ä/../x"),
    "parent": (None, "", "00000001-000000000000"),
    "as_of_ms": (0, -1, 1 << 45, 253_402_300_799_999),
    "levels": (
        (),
        (0.5,),
        (0.95, 0.5, 0.05),
        (0.05, 0.5, 2.0),
        (0.0, 0.5, 1.0),
        (0.05, math.nan, 0.95),
        (0.5,) * 3,
    ),
    "step_ms": (0, -1, 1, 1 << 40, (1 << 63) - 1),
    "horizon": (0, -1, 1, (1 << 31) - 1),
    "season": ((), (0,), (-1,) * 100),
    "experts": ((), ("",), ("a", "b")),
    "keys": (0, 1, 2, 3, -1, 1 << 40),
    "sources": (
        {},
        {("", "", -1): 5},
        {("cluster-b", "t", 0): 1},
        {("cluster-a", "traffic.shared.v1", 1): 1},
    ),
    "epsilon": ("", "0", "-1", "NaN", "sNaN", "Infinity", "1e999999999", "1e-999999999", "0.1 ", "٣", "1_0"),
    "files": (0, 1, -1, 1 << 28, (1 << 28) + 1, (1 << 62)),
}


def run(data: bytes) -> None:
    if not data:
        return
    part, body = PARTS[data[0] % len(PARTS)], data[1:]
    match part:
        case "signed":
            _follow(_sealed(body, _packaged(), 7))
        case "newer schema":
            _follow(_sealed(body, _newer(), NEWER))
        case "unsigned":
            _follow(body)
        case "context" | "graph":
            files = {GRAPH: GOOD_FILES[GRAPH], CONTEXT: GOOD_FILES[CONTEXT]}
            files[CONTEXT if part == "context" else GRAPH] = body
            _loaded(files)
        case "chunks":
            _chunks(body)
        case "pin":
            _pin(body)
        case "key":
            _configured(lambda: read_public(cast(Path, _File(body))))
        case "record":
            _record(body)
        case _:
            _tensors(body)


@cache
def _packaged() -> Any:
    return parse_schema(avro_source("model_update"))


@cache
def _newer() -> Any:
    source = avro_source("model_update")
    extra = {"name": "note", "type": ["null", "string", {"type": "array", "items": "null"}], "default": None}
    return parse_schema({**source, "fields": [*source["fields"][:-2], extra, *source["fields"][-2:]]})


def _sealed(body: bytes, schema: Any, schema_id: int) -> bytes:
    body += releases.SIGNER.public
    return b"\0" + schema_id.to_bytes(4, "big") + body + releases.SIGNER.sign(signed_part(schema, body))


def _follow(value: bytes) -> None:
    """A subscriber that has one release takes another, or says why not and keeps the first."""
    follower = Follower("toy", Pin(None, "first-use"), lambda id_: _newer() if id_ == NEWER else None)
    follower.take(follower.consider(FIRST.value), FIRST.chunks)
    before = follower.model
    try:
        manifest = follower.consider(value)
        wanted = needed(manifest)
        require(sum(wanted.values()) <= FILE_LIMIT, "more memory than a release may take")
        require(len(wanted) <= 2 * FILE_LIMIT // CHUNK_BYTES, "more chunks than a release may have")
        clusters = {cluster for cluster, _, _ in manifest.sources} or {"cluster-a"}
        require(
            manifest.version > ("cluster-a" in clusters), "an old release"
        )  # on another one they begin anew
        require(manifest.task == "toy", "a release of another task")
        require(
            bool(manifest.as_of) and len(list(manifest.chunk_keys())) >= 2, "a manifest without time or files"
        )
        model = follower.take(manifest, GOOD.chunks)
    except RefusedError as refused:
        _word(refused)
        require(follower.model is before, "a refused release is in use")
        return
    _forecasts(model)


def _loaded(files: Mapping[str, bytes]) -> None:
    try:
        model = load(GOOD.manifest, files)
    except RefusedError as refused:
        _word(refused)
        return
    require_flat(files[GRAPH])
    _forecasts(model)


def _forecasts(model: Model) -> None:
    for key in model.keys:
        told = model.forecast(key)
        require(
            all(math.isfinite(n) for n in (told.value, told.low, told.high)), "a forecast that is no number"
        )
        require(told.low <= told.high, "an interval that is none")
        require(0 < told.level < 1, "a level that is no probability")
        require(
            told.epsilon is None or (told.epsilon.is_finite() and told.epsilon >= 0),
            "an epsilon that is none",
        )
        require(told.as_of.year < 10_000 and bool(str(told)), "a forecast that cannot be told")


def _word(refused: RefusedError) -> None:
    require(refused.reason in REASONS, "a reason that is none of the declared words")
    require(len(str(refused)) < 2_000, "a refusal longer than a page")


def _chunks(body: bytes) -> None:
    """Keys and values by lines; the store stays within its limit, and the first value of a key stays."""
    limit = 1_500
    store, first = Chunks(limit), dict[str, bytes]()
    for line in body.split(b"\n")[:200]:
        key, _, value = line.partition(b"=")
        name = key.decode("utf-8", "replace")
        if name == "drop":
            store.drop_to(len(value))
            continue
        held = dict(store.view())
        store.put(name, value)
        if name in held and name in store.view():
            require(store.view()[name] == held[name], "a chunk was replaced")
        first.setdefault(name, value)
        require(sum(map(len, store.view().values())) <= limit, "more bytes than the limit")
        require(len(store.view()) * 256 <= limit, "more entries than the limit")
    store.has(GOOD.manifest)


class _File:
    """A file as a path's readers see it, without one on a disk."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def exists(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return self._content

    def read_text(self) -> str:
        return self._content.decode("utf-8")

    def __str__(self) -> str:
        return "pins/toy.json"


def _configured(read: Any) -> Any:
    try:
        return read()
    except ConfigurationError as problem:
        require(bool(problem.message) and bool(problem.remedy), "a refusal without message or remedy")
        return None


def _pin(body: bytes) -> None:
    pin = _configured(lambda: _read(cast(Path, _File(body))))
    if pin is None:
        return
    require(bool(pin.fingerprint), "a pin without a fingerprint")
    follower = Follower("toy", pin)
    try:
        follower.take(follower.consider(FIRST.value), FIRST.chunks)
    except RefusedError as refused:
        _word(refused)


def _record(body: bytes) -> None:
    """Records of the topic: the first line is the head, others are key=value."""
    head, *lines = body.split(b"\n")
    records = [(key, value) for key, _, value in (line.partition(b"=") for line in lines[:100])]
    recorder = Recorder()
    try:
        parts = recorder.restore([*records, (HEAD, head)])
    except SluiceError as problem:
        require(bool(problem.message) and bool(problem.remedy), "a refusal without message or remedy")
        return
    other = Recorder()
    other.restore([])
    written = other.changes(parts)
    require(Recorder().restore(written) == parts, "a record that does not come back")
    require(sum(map(len, parts.values())) <= len(body) + SHARD_BYTES, "more bytes than there were")


def _tensors(body: bytes) -> None:
    try:
        arrays, meta = load_tensors(body)
    except ValueError:
        return
    for array in arrays.values():
        require(
            array.nbytes <= len(body) and not array.flags.writeable, "an array that is more than the file"
        )
    json.dumps(meta)
    again, _ = load_tensors(dump({name: np.asarray(array) for name, array in arrays.items()}, meta))
    for name, array in arrays.items():
        require(again[name].tobytes() == array.tobytes(), "an array that does not come back")


def mutate(data: bytes, rng: Random) -> bytes:
    """Another manifest, whole and well signed, with some fields at an edge: bytes alone would rarely keep the name of
    a release, which stands for its version, files and offsets."""
    if data[:1] != b"\0":
        return data
    given: dict[str, Any] = {"version": 2, "offset": 200}
    for name in rng.sample(sorted(ODD), rng.randint(1, 3)):
        given[name] = rng.choice(ODD[name])
    if "epsilon" in given:
        terms = Terms("traffic", "1.0.0", "did:web:x", "vehicle", given.pop("epsilon"), "ab" * 32)
        given["contracts"] = rng.choice(((terms,), (terms, terms)))
    if "files" in given:
        content = replace(GOOD.manifest.file(CONTEXT), size=given.pop("files"))
        del given["offset"]
        return b"\0" + _body(
            seal(replace(GOOD.manifest, files=(content, *GOOD.manifest.files)), releases.SIGNER, 7)
        )
    return b"\0" + _body(releases.make(**given).value)


def _body(value: bytes) -> bytes:
    return value[5 : -SIGNATURE_BYTES - KEY_BYTES]


def seeds() -> Iterator[tuple[str, bytes]]:
    signed = _body(GOOD.value)
    yield "signed", b"\0" + signed
    yield "older", b"\0" + _body(releases.make(version=1, offset=300).value)
    yield "no levels", b"\0" + _body(releases.make(version=2, offset=200, levels=(0.95, 0.5, 0.05)).value)
    yield "unsigned", b"\1" + GOOD.value
    yield "newer schema", b"\2" + signed + b"\2\4hi"
    yield "context", b"\3" + GOOD_FILES[CONTEXT]
    yield "graph", b"\4" + GOOD_FILES[GRAPH]
    chunk = next(iter(GOOD.chunks)).encode()
    lines = [chunk.replace(b"/0000", b"/%04d" % at) + b"=" + b"x" * at * 9 for at in range(9)]
    yield "chunks", b"\5" + b"\n".join((*lines, chunk + b"=again", b"drop=xx", b"x=y"))
    pin = {"public_key": releases.SIGNER.public.hex(), "version": 1, "release": "", "past": {"cluster-a": 1}}
    yield "pin", b"\6" + json.dumps({**pin, "sources": [["cluster-a", "traffic.shared.v1", 0, 9]]}).encode()
    key = "MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    yield "key", f"\7-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n".encode()
    changes = Recorder().changes({"line": b"{}", "learner": b"xyz"})
    yield (
        "record",
        b"\x08"
        + b"\n".join((cast(bytes, changes[-1][1]), *(k + b"=" + (v or b"") for k, v in changes[:-1]))),
    )
    yield "tensors", b"\x09" + dump({"a": np.arange(3), "b": np.ones((2, 2), np.float32)}, {"keys": ["ä"]})
