"""Raw records of schema versions that were registered after this worker began.

An owner publishes with a new version of the contract while workers with the old one run. Their records are good: what
the worker's own contract names is read, what it does not name is not (and so not shared before the worker is started
with the new file). Taken for poison, as an id of no version is, they would be dead letters that nobody brings back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from schemas import columns
from schemas.codec import AvroSchema, Decoded, Decoder
from schemas.errors import ConfigurationError, RetriableError

log = structlog.get_logger("sluice.share")
UNKNOWN = "unknown-schema-id"
AGAIN_SECONDS, TELL_SECONDS = 0.5, 10.0
MOST_FOREIGN = 10_000
PROMOTED = {("int", "long"), ("int", "double"), ("long", "double"), ("float", "double")}

Versions = Mapping[int, tuple[int, AvroSchema]]  # schema id -> number of the version, schema


class Evolving:
    """A Decoder that asks the registry about an id that it has not met, once for each.

    `versions()` are the versions of the raw subject by now; it may raise RetriableError, and is then asked again until
    it answers or until `stopping()`: the records wait meanwhile. `current`: id of this worker's own schema. One thread.
    """

    def __init__(
        self,
        topic: str,
        versions: Callable[[], Versions],
        clock_id: int,
        current: int,
    ) -> None:
        self._topic, self._versions, self._clock_id, self._current = topic, versions, clock_id, current
        self.stopping: Callable[[], bool] = lambda: False
        known = versions()
        self._own, self._reader = known[current]
        # Newer ones when they come: none of their records may be there, and all the worker does is read.
        self._schemas = {id_: schema for id_, (number, schema) in known.items() if number <= self._own}
        self._foreign: set[int] = set()
        self._decoder = Decoder(self._schemas, clock_id, current)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """As Decoder. Raises ConfigurationError where records of a later version are there that this contract cannot
        read: they are no poison, another worker can; RetriableError only when stopping."""
        found = self._decoder.decode(values)
        ids = {
            int.from_bytes((values[each.row] or b"")[1:5], "big")
            for each in found.poison
            if each.reason == UNKNOWN
        } - self._foreign
        if not ids or not self._learn(ids):
            return found
        return self._decoder.decode(values)

    def _learn(self, ids: set[int]) -> bool:
        """Whether some of these are versions by now."""
        known = self._ask()
        if len(self._foreign) > MOST_FOREIGN:
            self._foreign.clear()
        self._foreign |= ids - known.keys()
        for id_ in sorted(ids & known.keys()):
            number, schema = known[id_]
            if (name := unreadable(schema, self._reader)) is not None:
                raise ConfigurationError(
                    f"{self._topic} holds records of its schema's version {number}, and this worker's contract "
                    f"(version {self._own}) cannot read them: field {name!r} is missing or of another type.",
                    "Start the workers with the contract's newest file. None of these records was passed over.",
                )
            self._schemas[id_] = schema
            log.warning(
                "records of a later version of this contract come; what is new in it is not shared",
                topic=self._topic,
                version=number,
                fields=sorted(_names(schema) - _names(self._reader)),
                remedy="Start the workers with the newest file, one after the other, to share that too.",
            )
        if not ids & known.keys():
            return False
        self._decoder = Decoder(self._schemas, self._clock_id, self._current)
        return True

    def _ask(self) -> Versions:
        told = -TELL_SECONDS
        while True:
            try:
                return self._versions()
            except RetriableError as problem:
                if self.stopping():
                    raise
                if time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    log.warning(
                        "records of an unknown schema wait for the registry",
                        topic=self._topic,
                        why=problem.message,
                        remedy=problem.remedy,
                    )
                time.sleep(AGAIN_SECONDS)


def unreadable(writer: AvroSchema, reader: AvroSchema) -> str | None:
    """The first field of `reader` that some record of `writer` cannot give; None where it reads them all.

    Of flat records, as contracts make them.
    """
    theirs = {field["name"]: field["type"] for field in writer["fields"]}
    for field in reader["fields"]:
        name = field["name"]
        if name in theirs:
            (written, may_miss), (read, may_be_null) = map(columns.nullable, (theirs[name], field["type"]))
            kinds = columns.plain(written), columns.plain(read)
            if (kinds[0] == kinds[1] or kinds in PROMOTED) and (may_be_null or not may_miss):
                continue
        elif "default" in field:
            continue
        return str(name)
    return None


def _names(schema: Mapping[str, Any]) -> set[str]:
    return {field["name"] for field in schema["fields"]}
