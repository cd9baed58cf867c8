"""What a request would change: from the store as it is to the records that the log shall get. Pure.

Nothing is applied here. Each function returns the records in the order in which they must be written, and the
answer that is true once they are. No records: nothing to change. A request that may not be granted raises
Refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sluice.stack import registry_replies as reply
from sluice.stack import registry_rules as rules
from sluice.stack.registry_rules import DEFAULT_LEVEL, Reference, Schema
from sluice.stack.registry_store import (
    DEFAULT_MODE,
    MODES,
    MOST_REFERENCES,
    Record,
    Store,
    Version,
    delete_subject_record,
    level_record,
    mode_record,
    schema_key,
    schema_record,
)

LARGEST = 2**31 - 1  # version or id; clients read both as signed 32 bits
LONGEST_SUBJECT = 260  # a topic's name has at most 249 characters, and "-value"


@dataclass(frozen=True, slots=True)
class Change:
    """`records` to append, `answer` to give."""

    records: tuple[Record, ...]
    answer: Any


def read_schema(store: Store, text: str, references: tuple[Reference, ...], kind: str | None) -> Schema:
    """The schema of a request. Raises Refused (42201) where it is none, or where a reference leads
    nowhere.
    """
    if kind not in (None, "AVRO"):
        raise reply.invalid_schema(f"schema type {kind} is not supported, only AVRO.")
    return rules.read(text, references, _resolved(store, references))


def incompatibilities(store: Store, schema: Schema, earlier: list[Version], level: str) -> list[str]:
    """Why `schema` may not follow `earlier` (oldest first); empty when it may."""
    if any(v.schema.kind != "AVRO" for v in earlier):
        return ["earlier versions are not Avro"]
    pairs = [(v.schema, _resolved(store, v.schema.references)) for v in earlier]
    return rules.differences((schema, _resolved(store, schema.references)), pairs, level)


def find_version(store: Store, subject: str, wanted: str, deleted: bool = False) -> Version:
    """The version `wanted` ("latest", "-1" or a number) of `subject`; soft-deleted ones only when asked for.

    Raises Refused: 42202 for what is no version, 40401 for an unknown subject, 40402 for an unknown version.
    """
    latest = wanted in ("latest", "-1")
    short = wanted.isascii() and wanted.isdigit() and len(wanted) < 20  # int() refuses thousands of digits
    if not latest and not (short and 1 <= int(wanted) <= LARGEST):
        raise reply.invalid_version(wanted)
    known = store.all(subject) if deleted else store.live(subject)
    if not known:
        raise reply.subject_not_found(subject)
    if latest:
        return known[-1]
    for version in known:
        if version.version == int(wanted):
            return version
    raise reply.version_not_found(wanted)


def find_schema(store: Store, subject: str, schema: Schema, deleted: bool = False) -> Version:
    """The newest version of `subject` that is this schema. Raises Refused: 40401, 40403."""
    known = store.all(subject) if deleted else store.live(subject)
    if not known:
        raise reply.subject_not_found(subject)
    for version in reversed(known):
        if version.schema.identity == schema.identity:
            return version
    raise reply.schema_not_found()


def register(store: Store, subject: str, schema: Schema, number: int = 0, schema_id: int = 0) -> Change:
    """One more version of `subject`, or none if a live version already is this schema. The answer is the id.

    `number` and `schema_id` above 0 are taken over in mode IMPORT only, which also checks no compatibility.
    """
    if not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise reply.invalid_subject()
    live = store.live(subject)
    for version in reversed(live):
        if version.schema.identity == schema.identity and schema_id in (0, version.id):
            return Change((), version.id)
    mode = store.mode(subject)
    if mode in ("READONLY", "READONLY_OVERRIDE"):
        raise reply.not_permitted(f"Subject {subject} is in read-only mode")
    if mode == "IMPORT":
        _check_import(store, subject, schema, number, schema_id)
    elif number > 0 or schema_id > 0:
        raise reply.not_permitted(f"Subject {subject} is not in import mode")
    elif problems := incompatibilities(store, schema, live, store.level(subject)):
        raise reply.incompatible(problems)
    known = store.all(subject)
    record: dict[str, Any] = {
        "subject": subject,
        "version": number or (known[-1].version + 1 if known else 1),
        "id": schema_id or store.id_of(schema) or store.next_id(),
    }
    if max(record["version"], record["id"]) > LARGEST:
        raise reply.not_permitted(f"Versions and ids end at {LARGEST}.")
    if schema.references:
        record["references"] = [r.shown() for r in schema.references]
    record |= {"schema": schema.text, "deleted": False}
    return Change((schema_record(record),), record["id"])


def delete_version(store: Store, subject: str, wanted: str, permanent: bool) -> Change:
    """Hide one version, or with `permanent` remove a hidden one. The answer is its number."""
    _check_writable(store, subject)
    found = find_version(store, subject, wanted, deleted=wanted.isdigit())
    if permanent and not found.deleted:
        raise reply.version_not_soft_deleted(subject, found.version)
    if not permanent and found.deleted:
        raise reply.version_soft_deleted(subject, found.version)
    _check_unreferenced(store, [found])
    if permanent:
        return Change(((schema_key(subject, found.version), None),), found.version)
    return Change((schema_record({**found.record, "deleted": True}),), found.version)


def delete_subject(store: Store, subject: str, permanent: bool) -> Change:
    """Hide all versions, or with `permanent` remove a hidden subject. The answer is the list of versions'
    numbers.
    """
    _check_writable(store, subject)
    known, live = store.all(subject), store.live(subject)
    if not known:
        raise reply.subject_not_found(subject)
    if permanent:
        if live:
            raise reply.subject_not_soft_deleted(subject)
        _check_unreferenced(store, known)
        tombstones = tuple((schema_key(subject, v.version), None) for v in known)
        return Change(tombstones, [v.version for v in known])
    if not live:
        raise reply.subject_soft_deleted(subject)
    _check_unreferenced(store, live)
    records = [delete_subject_record(subject, known[-1].version)]
    if subject in store.levels:
        records.append(level_record(subject, None))
    if subject in store.modes:
        records.append(mode_record(subject, None))
    return Change(tuple(records), [v.version for v in live])


def set_level(subject: str | None, level: str) -> Change:
    """Compatibility of one subject, or of all that have none of their own (None)."""
    level = level.upper()
    if level not in rules.LEVELS:
        raise reply.invalid_level(rules.LEVELS)
    return Change((level_record(subject, level),), {"compatibility": level})


def drop_level(store: Store, subject: str | None) -> Change:
    """Back to the level of all, or the level of all back to the default. The answer is the level that
    ended.
    """
    if subject is not None and subject not in store.levels:
        raise reply.subject_not_found(subject)
    ended = store.levels.get(subject, DEFAULT_LEVEL)
    return Change((level_record(subject, None),), {"compatibilityLevel": ended})


def set_mode(store: Store, subject: str | None, mode: str, force: bool) -> Change:
    """Mode of one subject or of all. IMPORT needs an empty place unless forced: it skips the compatibility
    check.
    """
    mode = mode.upper()
    if mode not in MODES:
        raise reply.invalid_mode(MODES)
    taken = any(store.live(name) for name in store.subjects if subject in (None, name))
    if mode == "IMPORT" and taken and not force:
        raise reply.not_permitted("Cannot import since found existing subjects")
    return Change((mode_record(subject, mode),), {"mode": mode})


def drop_mode(store: Store, subject: str | None) -> Change:
    """Back to the mode of all, or the mode of all back to the default. The answer is the mode that ended."""
    if subject is not None and subject not in store.modes:
        raise reply.subject_not_found(subject)
    return Change((mode_record(subject, None),), {"mode": store.modes.get(subject, DEFAULT_MODE)})


def _resolved(store: Store, references: tuple[Reference, ...]) -> list[str]:
    try:
        return store.resolve(references)
    except KeyError as missing:
        raise reply.invalid_schema(
            f"a reference leads nowhere, to itself or to more than {MOST_REFERENCES} others: {missing}."
        ) from None


def _check_import(store: Store, subject: str, schema: Schema, number: int, schema_id: int) -> None:
    if schema_id <= 0:
        raise reply.not_permitted("In import mode a schema comes with its id.")
    if number in store.subjects.get(subject, {}):
        raise reply.not_permitted(f"Subject {subject} has a version {number} already.")
    if any(v.schema.identity != schema.identity for v in store.holders(schema_id)):
        raise reply.not_permitted(f"Overwrite new schema with id {schema_id} is not permitted.")


def _check_writable(store: Store, subject: str) -> None:
    if store.mode(subject) in ("READONLY", "READONLY_OVERRIDE"):
        raise reply.not_permitted(f"Subject {subject} is in read-only mode")


def _check_unreferenced(store: Store, versions: list[Version]) -> None:
    for version in versions:
        if store.referenced_by(version.subject, version.version):
            raise reply.referenced(version.subject, version.version)
