"""The manifest of a model release: what is in it, how it is sealed, and how it is checked.

Needs the base install only. On the wire, in `models.<task>.v1`: the Confluent frame (0, u32 schema id), then
the Avro body of `sluice.ModelUpdate`. The body ends with the signer's public key (32 bytes) and the signature
(64 bytes), so the order of events is: length, key, signature, and only then the first byte of Avro. What is
signed:

    "sluice/1/model-update" 00 | SHA-256 of the writer schema's canonical form | body less its last 64 bytes

The schema is under the signature because the same bytes read with another schema would be another statement.
The files travel in `models.<task>.chunks.v1` as plain bytes with key `<release>/<file>/<index, 4 digits>`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files as package_files
from typing import Any, Self

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from schemas.errors import SkippableError
from trainers.signing import KEY_BYTES, SIGNATURE_BYTES, Signer, verify

FORMAT = 1
CHUNK_BYTES = 512 << 10
FILE_LIMIT = 256 << 20  # what a subscriber needs of a release; more is refused before memory is spent
MANIFEST_LIMIT = 1 << 20
DOMAIN = b"sluice/1/model-update\0"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

GRAPH, WEIGHTS, CONTEXT, CARD = "forecast.onnx", "weights.safetensors", "context.safetensors", "card.md"
MEDIA_TYPES = {
    GRAPH: "application/onnx",
    WEIGHTS: "application/safetensors",
    CONTEXT: "application/safetensors",
    CARD: "text/markdown",
}

NEEDED = (GRAPH, CONTEXT)  # what a subscriber loads; weights and card are for trainers and people

Source = tuple[str, str, int]  # cluster id, topic, partition


class RefusedError(SkippableError):
    """A release is not taken. `reason` is one of the codes below; the model in use stays in use."""

    # manifest-unreadable, signer-unknown, signature-invalid, schema-unknown, wrong-task, format-unknown,
    # not-newer, chunk-missing, chunk-damaged, file-damaged, context-unusable, graph-unusable

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class File:
    """One file of a release: SHA-256 of the whole and of each piece of 512 KiB in order."""

    name: str
    media_type: str
    size: int
    sha256: bytes
    chunks: tuple[bytes, ...]

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        pieces = tuple(hashlib.sha256(piece).digest() for piece in split(content))
        return cls(name, MEDIA_TYPES[name], len(content), hashlib.sha256(content).digest(), pieces)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one contract says of the data that was learnt from. `epsilon` is its cap, a decimal; never a
    ledger reading.
    """

    contract: str
    version: str
    owner: str
    protects: str
    epsilon: str
    terms_digest: str


@dataclass(frozen=True, slots=True)
class Metric:
    """Mean absolute error of one forecaster on `count` shared (noised) labels of the gate's window."""

    model: str
    mae: float
    count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One release; field by field as in schemas/avro/model_update.avsc, times in ms of event time."""

    task: str
    version: int
    parent: str | None
    as_of_ms: int
    sources: Mapping[Source, int]
    contracts: tuple[Terms, ...]
    target: str
    unit: str
    step_ms: int
    horizon: int
    season: tuple[int, ...]
    levels: tuple[float, ...]
    experts: tuple[str, ...]
    metrics: tuple[Metric, ...]
    keys: int
    files: tuple[File, ...]
    format: int = FORMAT
    public_key: bytes = b""

    @property
    def release(self) -> str:
        """The release's name: its version and 12 hex digits that stand for its files and offsets."""
        text = json.dumps(
            [[f.name, f.sha256.hex()] for f in self.files]
            + [[*s, o] for s, o in sorted(self.sources.items())]
        )
        return f"{self.version:08d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def as_of(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self.as_of_ms)

    def file(self, name: str) -> File:
        """The entry of a file. Raises RefusedError(manifest-unreadable) where there is none."""
        for file in self.files:
            if file.name == name:
                return file
        raise RefusedError("manifest-unreadable", f"no {name} in the release")

    def chunk_keys(self) -> Iterator[tuple[str, bytes]]:
        """Every chunk's key with its SHA-256, in order."""
        for file in self.files:
            for index, digest in enumerate(file.chunks):
                yield chunk_key(self.release, file.name, index), digest


def chunk_key(release: str, name: str, index: int) -> str:
    return f"{release}/{name}/{index:04d}"


def split(content: bytes) -> Iterator[bytes]:
    """`content` in pieces of 512 KiB; an empty file is one empty piece."""
    for start in range(0, max(1, len(content)), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


def avro_source(name: str) -> dict[str, Any]:
    """A schema of schemas/avro as it stands there: model_update, model_ack or model_forecast."""
    found: dict[str, Any] = json.loads(package_files("schemas").joinpath("avro", f"{name}.avsc").read_text())
    return found


@cache
def avro(name: str) -> Any:
    """The same, parsed."""
    return parse_schema(avro_source(name))


def signed_part(schema: Any, body: bytes) -> bytes:
    """The bytes under the signature; `body` is the Avro body without its last 64 bytes."""
    digest = avro_fingerprint(to_parsing_canonical_form(schema), "SHA-256")
    return DOMAIN + bytes.fromhex(digest) + body


def seal(manifest: Manifest, signer: Signer, schema_id: int) -> bytes:
    """The framed, signed record value. Equal manifests and keys give equal bytes."""
    schema, out = avro("model_update"), io.BytesIO()
    record = _record(replace(manifest, public_key=signer.public))
    schemaless_writer(out, schema, record, strict=True)
    body = out.getvalue()[:-SIGNATURE_BYTES]
    return b"\0" + schema_id.to_bytes(4, "big") + body + signer.sign(signed_part(schema, body))


def signer_of(value: bytes) -> bytes:
    """The public key that a manifest names, unverified. Raises RefusedError(manifest-unreadable)."""
    if not 5 + KEY_BYTES + SIGNATURE_BYTES < len(value) <= MANIFEST_LIMIT or value[0] != 0:
        raise RefusedError("manifest-unreadable", "wrong frame or length")
    return value[-SIGNATURE_BYTES - KEY_BYTES : -SIGNATURE_BYTES]


def unseal(value: bytes, public: bytes, lookup: Callable[[int], Any] | None = None) -> Manifest:
    """The manifest in `value`, if `public` (32 bytes) signed it.

    The packaged schema is tried first; `lookup` (schema id -> parsed schema or None) is asked only when the
    signature does not fit it, as after an upgrade of the trainer. Raises RefusedError.
    """
    if signer_of(value) != public:
        raise RefusedError("signer-unknown", "signed by another key than the pinned one")
    body, signature = value[5:-SIGNATURE_BYTES], value[-SIGNATURE_BYTES:]
    schema = avro("model_update")
    if not verify(public, signed_part(schema, body), signature):
        schema = lookup(int.from_bytes(value[1:5], "big")) if lookup else None
        if schema is None or not verify(public, signed_part(schema, body), signature):
            raise RefusedError("signature-invalid", "the signature does not fit the manifest")
    source = io.BytesIO(value[5:])
    try:
        record: Any = schemaless_reader(source, schema, avro("model_update"))
    except Exception as problem:  # fastavro raises many kinds; the bytes are the pinned signer's own
        raise RefusedError("schema-unknown", f"{type(problem).__name__} while reading the manifest") from None
    if source.read(1):
        raise RefusedError("manifest-unreadable", "bytes after the signature")
    return _manifest(record)


def assemble(file: File, pieces: Iterable[bytes]) -> bytes:
    """The file from its pieces. Raises RefusedError(chunk-damaged | file-damaged)."""
    out = io.BytesIO()
    for index, (piece, digest) in enumerate(zip(pieces, file.chunks, strict=True)):
        if hashlib.sha256(piece).digest() != digest:
            raise RefusedError("chunk-damaged", f"{file.name} chunk {index}")
        out.write(piece)
    content = out.getvalue()
    if len(content) != file.size or hashlib.sha256(content).digest() != file.sha256:
        raise RefusedError("file-damaged", file.name)
    return content


def require_newer(manifest: Manifest, version: int, sources: Mapping[Source, int]) -> None:
    """Refuse unless `manifest` follows a release with this version and these offsets.

    The version must rise, no source may go back, and at least one must have gone on: else an old release that
    somebody sends again would pass as news. Raises RefusedError(not-newer).
    """
    if manifest.version <= version:
        raise RefusedError("not-newer", f"version {manifest.version} after {version}")
    steps = [manifest.sources.get(source, -1) - offset for source, offset in sources.items()]
    new = [source for source in manifest.sources if source not in sources]
    if min(steps, default=0) < 0:
        raise RefusedError("not-newer", "a source's offset went back")
    if steps and max(steps) == 0 and not new:
        raise RefusedError("not-newer", "no source's offset went on")


def _record(manifest: Manifest) -> dict[str, Any]:
    record = asdict(manifest)
    record["release"] = manifest.release
    record["as_of"] = record.pop("as_of_ms")
    record["sources"] = [
        {"cluster": c, "topic": t, "partition": p, "offset": o}
        for (c, t, p), o in sorted(manifest.sources.items())
    ]
    record["signature"] = bytes(SIGNATURE_BYTES)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}


def _manifest(record: dict[str, Any]) -> Manifest:
    if record["format"] != FORMAT:
        raise RefusedError("format-unknown", f"format {record['format']}, this version reads {FORMAT}")
    manifest = Manifest(
        task=record["task"],
        version=record["version"],
        parent=record["parent"],
        as_of_ms=(record["as_of"] - EPOCH) // timedelta(milliseconds=1),
        sources={(s["cluster"], s["topic"], s["partition"]): s["offset"] for s in record["sources"]},
        contracts=tuple(Terms(**c) for c in record["contracts"]),
        target=record["target"],
        unit=record["unit"],
        step_ms=record["step_ms"],
        horizon=record["horizon"],
        season=tuple(record["season"]),
        levels=tuple(record["levels"]),
        experts=tuple(record["experts"]),
        metrics=tuple(Metric(**m) for m in record["metrics"]),
        keys=record["keys"],
        files=tuple(File(**{**f, "chunks": tuple(f["chunks"])}) for f in record["files"]),
        public_key=record["public_key"],
    )
    if manifest.release != record["release"]:
        raise RefusedError("manifest-unreadable", "the release's name does not fit its files")
    for file in manifest.files:
        pieces = max(1, -(-file.size // CHUNK_BYTES))
        if not 0 <= file.size <= FILE_LIMIT or len(file.chunks) != pieces:
            raise RefusedError("manifest-unreadable", f"{file.name}: size and chunks disagree")
    return manifest
