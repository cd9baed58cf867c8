"""Releases, read and checked without the code that writes or takes them: Avro, Ed25519 and SHA-256 only.

A manifest is `00 | schema id, 4 bytes | Avro`, whose last 96 bytes are the signer's public key and its signature over
`domain | SHA-256 of the schema's canonical form | Avro less the signature`; see schemas/avro/model_update.avsc. Chunks
have keys `<release>/<file>/<index>`. Nothing here touches Kafka.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

DOMAIN = b"sluice/1/model-update\0"
SIGNED, KEY = 64, 32

Newest = Callable[[Mapping[int, int]], int | None]  # offsets by partition -> newest slot before them


@dataclass(frozen=True, slots=True)
class Release:
    """Of a manifest, what the line of releases is about. `as_of` in slots; `files`: name -> digests of its chunks."""

    name: str
    version: int
    parent: str | None
    as_of: int
    sources: Mapping[int, int]
    files: Mapping[str, tuple[bytes, ...]]


@dataclass(slots=True)
class Findings:
    """`bad`: manifests or chunks that are not what they say. `errors`: in words, the first of each."""

    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    second_payloads: int = 0
    bad: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.second_payloads or self.bad)


class Releases:
    """Told of every record of a task's manifest and chunk topics, committed ones and all."""

    def __init__(self, schema: Any, public: bytes) -> None:
        self._schema = parse_schema(schema)
        self._digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(self._schema), "SHA-256"))
        self._signer, self._public = Ed25519PublicKey.from_public_bytes(public), public
        self.line: list[Release] = []  # as read_committed readers see it
        self.findings = Findings()
        self._payloads: dict[bytes, bytes] = {}
        self._cleared: set[bytes] = set()
        self._chunks: dict[bytes, bytes] = {}
        self._counts: Counter[bytes] = Counter()
        self._names: set[str] = set()

    def manifest(self, key: bytes, value: bytes | None, *, committed: bool) -> None:
        if value is None:
            self._cleared.add(key)
            return
        self._payload(key, value)
        try:
            release = self._read(value)
        except (InvalidSignature, ValueError, KeyError, EOFError, IndexError) as problem:
            self._bad(f"manifest {key!r} cannot be taken: {type(problem).__name__} {problem}")
            return
        if key.decode() != release.name:
            self._bad(f"manifest {release.name} stands under another key")
        self._names.add(release.name)
        if committed:
            self.line.append(release)

    def chunk(self, key: bytes, value: bytes | None, *, committed: bool) -> None:
        if value is None:
            self._cleared.add(key)
            return
        self._payload(key, value)
        if committed:
            self._chunks[key] = hashlib.sha256(value).digest()
            self._counts[key] += 1

    @property
    def aborted(self) -> int:
        """Releases that only readers of uncommitted data see: tries that a fault ended."""
        return len(self._names - {release.name for release in self.line})

    def compare(self, newest: Newest) -> Findings:
        """The line: 1, 2, 3 ..., each the child of the one before, its offsets ahead of that one's, made of just what
        lies before them."""
        found, before = self.findings, None
        versions = Counter(release.version for release in self.line)
        top = max(versions, default=0)
        found.lost += sum(version not in versions for version in range(1, top + 1))
        found.duplicated += sum(count - 1 for count in versions.values())
        for release in self.line:
            if before is not None:
                self._follows(before, release)
            elif release.parent is not None or release.version != 1:
                self._bad(f"{release.name} is the first and has a parent, or another version")
            if (slot := newest(release.sources)) != release.as_of:
                self._bad(f"{release.name} is as of slot {release.as_of}, its offsets say {slot}")
            self._files(release)
            before = release
        known = {release.name.encode() for release in self.line}
        for key in self._counts:
            if key.partition(b"/")[0] not in known:
                self._bad(f"chunk {key!r} belongs to no release")
        found.duplicated += sum(count - 1 for count in self._counts.values())
        return found

    def _follows(self, before: Release, release: Release) -> None:
        if release.version <= before.version:
            self.findings.reordered += release.version < before.version
            return
        steps = [release.sources.get(part, -1) - offset for part, offset in before.sources.items()]
        if release.version == before.version + 1 and release.parent != before.name:
            self._bad(f"{release.name} is not the child of {before.name}")
        if min(steps, default=0) < 0 or max(steps, default=1) <= 0 or release.as_of <= before.as_of:
            self._bad(f"{release.name} does not go on from {before.name}")

    def _files(self, release: Release) -> None:
        for name, digests in release.files.items():
            for index, digest in enumerate(digests):
                key = f"{release.name}/{name}/{index:04d}".encode()
                if key in self._cleared:
                    continue
                if key not in self._chunks:
                    self.findings.lost += 1
                    self._say(f"chunk {key!r} is missing")
                elif self._chunks[key] != digest:
                    self._bad(f"chunk {key!r} is not what its manifest says")

    def _read(self, value: bytes) -> Release:
        body = value[5:]
        if value[:1] != b"\0" or body[-SIGNED - KEY : -SIGNED] != self._public:
            raise ValueError("no frame, or of another signer")
        self._signer.verify(body[-SIGNED:], DOMAIN + self._digest + body[:-SIGNED])
        stream = io.BytesIO(body)
        record: Any = schemaless_reader(stream, self._schema, None)
        if stream.read(1):
            raise ValueError("bytes behind the record")
        return Release(
            record["release"],
            record["version"],
            record["parent"],
            int(record["as_of"].timestamp() * 1000) // record["step_ms"],
            {each["partition"]: each["offset"] for each in record["sources"]},
            {each["name"]: tuple(each["chunks"]) for each in record["files"]},
        )

    def _payload(self, key: bytes, value: bytes) -> None:
        digest = hashlib.sha256(value).digest()
        if self._payloads.setdefault(key, digest) != digest:
            self.findings.second_payloads += 1
            self._say(f"{key!r} has two payloads")

    def _bad(self, text: str) -> None:
        self.findings.bad += 1
        self._say(text)

    def _say(self, text: str) -> None:
        if len(self.findings.errors) < 20:
            self.findings.errors.append(text)
