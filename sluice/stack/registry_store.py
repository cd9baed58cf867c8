"""What the log of schemas says: a fold over the records of `_schemas`. Pure and single-threaded.

Records are Confluent's, byte for byte in the keys (compaction compares bytes), so that Karapace or
Confluent's own server can take the topic over, and this one theirs:

    {"keytype":"SCHEMA","subject":s,"version":v,"magic":1}  {"subject","version","id","schema","deleted", ...}
    {"keytype":"DELETE_SUBJECT","subject":s,"magic":0}      {"subject","version"}: soft-deletes all up to it
    {"keytype":"CONFIG","subject":s or null,"magic":0}      {"compatibilityLevel"}
    {"keytype":"MODE","subject":s or null,"magic":0}        {"mode"}
    {"keytype":"NOOP","magic":0}                            null: marks a place in the log

A null value (tombstone) removes a version for good, or a level or mode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sluice.stack.registry_rules import DEFAULT_LEVEL, LEVELS, Reference, Schema

Record = tuple[bytes, bytes | None]
MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
DEFAULT_MODE = "READWRITE"
MOST_REFERENCES = 64  # that one schema may need, those of its references included


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject. `record` is its value in the log; what other registries put there is kept."""

    subject: str
    version: int
    id: int
    schema: Schema
    deleted: bool
    record: Mapping[str, Any] = field(repr=False)


class Store:
    """All subjects, as of the record at offset `applied` (-1: none yet).

    Soft-deleted versions stay in, marked: their ids still resolve, as data written with them is still there.
    """

    def __init__(self) -> None:
        self.applied = -1
        self.highest_id = 0
        self.ignored = 0  # records that are no registry record; never an error, the log is not ours alone
        self.conflicts = 0  # ids with two different schemas: two writers were at work; the later one wins
        self.subjects: dict[str, dict[int, Version]] = {}
        self.levels: dict[str | None, str] = {}
        self.modes: dict[str | None, str] = {}
        self._holders: dict[int, dict[tuple[str, int], Version]] = {}
        self._identities: dict[str, int] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Take the next record of the log in. Never raises because of its content."""
        self.applied = offset
        try:
            found = json.loads(key or b"")
            content = None if value is None else json.loads(value)
            self._take(found, content)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.ignored += 1

    def live(self, subject: str) -> list[Version]:
        """Versions that are not deleted, oldest first; empty for a subject that does not exist."""
        return [v for v in self.all(subject) if not v.deleted]

    def all(self, subject: str) -> list[Version]:
        """All versions, soft-deleted ones too, oldest first."""
        return [v for _, v in sorted(self.subjects.get(subject, {}).items())]

    def holders(self, schema_id: int) -> list[Version]:
        """Every version, soft-deleted ones too, that has this id; empty for an unknown id."""
        return [v for _, v in sorted(self._holders.get(schema_id, {}).items())]

    def id_of(self, schema: Schema) -> int | None:
        """The id under which the same schema is known in any subject."""
        return self._identities.get(schema.identity)

    def next_id(self) -> int:
        """An id that no schema ever had, not even one that was deleted for good and compacted away.

        Offsets are never reused: the offset of the next record serves, as long as nobody else appends.
        """
        return max(self.highest_id, self.applied) + 1

    def level(self, subject: str) -> str:
        """The compatibility level that holds for `subject`."""
        return self.levels.get(subject) or self.levels.get(None, DEFAULT_LEVEL)

    def mode(self, subject: str) -> str:
        """The mode that holds for `subject`; READONLY_OVERRIDE of all wins over the subject's own."""
        of_all = self.modes.get(None, DEFAULT_MODE)
        return of_all if of_all == "READONLY_OVERRIDE" else self.modes.get(subject) or of_all

    def referenced_by(self, subject: str, version: int) -> list[int]:
        """Ids of live schemas that refer to this version."""
        return sorted(
            {
                v.id
                for name in self.subjects
                for v in self.live(name)
                if any((r.subject, r.version) == (subject, version) for r in v.schema.references)
            }
        )

    def resolve(self, references: tuple[Reference, ...]) -> list[str]:
        """Texts of all references, what others need first. Each is visited once: by their paths, 30 schemas of
        which each refers twice to the one before are 2^30 visits.

        Raises KeyError where one does not exist or refers to itself, or where there are more than 64.
        """
        texts: dict[tuple[str, int], str] = {}
        begun: set[tuple[str, int]] = set()

        def visit(wanted: tuple[Reference, ...]) -> None:
            for reference in wanted:
                place = (reference.subject, reference.version)
                if place in texts:
                    continue
                if place in begun or len(begun) == MOST_REFERENCES:
                    raise KeyError(reference.subject)
                begun.add(place)
                found = self.subjects[reference.subject][reference.version].schema
                visit(found.references)
                texts[place] = found.text

        visit(references)
        return list(dict.fromkeys(texts.values()))

    def _take(self, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        match key["keytype"]:
            case "SCHEMA":
                self._take_schema(key["subject"], int(key["version"]), value)
            case "DELETE_SUBJECT" if value is not None:
                for version, held in list(self.subjects.get(key["subject"], {}).items()):
                    if version <= int(value["version"]) and not held.deleted:
                        self._put(version_of({**held.record, "deleted": True}))
            case "CONFIG":
                _set(self.levels, key.get("subject"), (value or {}).get("compatibilityLevel"), LEVELS)
            case "MODE":
                _set(self.modes, key.get("subject"), (value or {}).get("mode"), MODES)
            case "NOOP" | "DELETE_SUBJECT":
                pass
            case _:
                self.ignored += 1

    def _take_schema(self, subject: str, version: int, value: dict[str, Any] | None) -> None:
        if value is not None:
            self._put(version_of({**value, "subject": subject, "version": version}))
        elif (held := self.subjects.get(subject, {}).pop(version, None)) is not None:
            self._forget(held)
            if not self.subjects[subject]:
                del self.subjects[subject]

    def _put(self, new: Version) -> None:
        if (held := self.subjects.get(new.subject, {}).get(new.version)) is not None:
            self._forget(held)
        if any(other.schema.identity != new.schema.identity for other in self.holders(new.id)[:1]):
            self.conflicts += 1
        self.subjects.setdefault(new.subject, {})[new.version] = new
        self._holders.setdefault(new.id, {})[new.subject, new.version] = new
        self._identities.setdefault(new.schema.identity, new.id)
        self.highest_id = max(self.highest_id, new.id)

    def _forget(self, held: Version) -> None:
        holders = self._holders[held.id]
        del holders[held.subject, held.version]
        if not holders:
            del self._holders[held.id]
            if self._identities.get(held.schema.identity) == held.id:
                del self._identities[held.schema.identity]


def version_of(record: Mapping[str, Any]) -> Version:
    """The version that a SCHEMA record's value describes. Raises KeyError, TypeError or ValueError."""
    if not isinstance(record["schema"], str) or not isinstance(record["subject"], str):
        raise TypeError("schema record")
    references = tuple(
        Reference(str(r["name"]), str(r["subject"]), int(r["version"]))
        for r in record.get("references") or ()
    )
    schema = Schema(record["schema"], references, record.get("schemaType") or "AVRO")
    number, schema_id = int(record["version"]), int(record["id"])
    return Version(record["subject"], number, schema_id, schema, bool(record.get("deleted")), record)


def schema_record(record: Mapping[str, Any]) -> Record:
    """The log's record of one version; `record` is the value."""
    return schema_key(record["subject"], record["version"]), _json(record)


def schema_key(subject: str, version: int) -> bytes:
    return _json({"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1})


def delete_subject_record(subject: str, version: int) -> Record:
    key = _json({"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0})
    return key, _json({"subject": subject, "version": version})


def level_record(subject: str | None, level: str | None) -> Record:
    key = _json({"keytype": "CONFIG", "subject": subject, "magic": 0})
    return key, None if level is None else _json({"compatibilityLevel": level})


def mode_record(subject: str | None, mode: str | None) -> Record:
    key = _json({"keytype": "MODE", "subject": subject, "magic": 0})
    return key, None if mode is None else _json({"mode": mode})


NOOP: Record = (b'{"keytype":"NOOP","magic":0}', None)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _set(table: dict[str | None, str], subject: str | None, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value in known:
        table[subject] = value
    else:
        table.pop(subject, None)
