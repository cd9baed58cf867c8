"""What a contract may not say, and what it should think twice about: each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from schemas.findings import Problem
from schemas.promises import fields, promise
from schemas.rules import Count, Number, Time
from schemas.targets import fields_of, records_of, scaled
from schemas.text import Loc
from schemas.units import duration_text

if TYPE_CHECKING:
    from schemas.contract import Contract

TYPES = {
    "count": ("int",),
    "number": ("int", "float"),
    "category": ("string",),
    "pseudonym": ("string", "int"),
    "time": ("timestamp",),
}


def open_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """`mode: open` protects nobody: its `privacy:` holds only `fields`; the rest is filled in to say so."""
    if data.get("mode") != "open" or not isinstance(data.get("privacy"), dict):
        return data
    given = data["privacy"]
    if set(given) - {"fields", "epoch"}:
        raise ValueError(
            "mode: open protects nobody; its privacy section holds only fields and epoch, no promise"
        )
    nobody = {
        "protects": "nobody",
        "epoch": {"length": "day"},
        "epsilon": 0,
        "contribution": {"max": 1, "held_by": "assumed", "basis": "open data", "attested_by": "the owner"},
    }
    return {**data, "privacy": {**nobody, **given}}


def refusals(contract: Contract) -> list[Problem]:
    """Everything that cannot be promised, in the order of the file."""
    found = [*_structure(contract)]
    return found or [*promise(contract), *fields(contract), *_mapping(contract)]


def _structure(contract: Contract) -> Iterator[Problem]:
    event, privacy = contract.event, contract.privacy
    names = set(event.fields)
    if event.key not in names:
        yield Problem(("event", "key"), f"{event.key!r} is not a field.", "List it under event.fields.")
    elif event.fields[event.key].type not in ("string", "int"):
        yield Problem(("event", "key"), "the key must be a string or an int.", "Choose another key.")
    if event.time.field not in names:
        yield Problem(
            ("event", "time"), f"{event.time.field!r} is not a field.", "List it under event.fields."
        )
    elif event.fields[event.time.field].type != "timestamp":
        yield Problem(("event", "time"), "the event time must be a timestamp.", "Set its type to timestamp.")
    for name in sorted(names - set(privacy.fields)):
        yield Problem(
            ("event", "fields", name),
            f"the field {name!r} has no rule.",
            "Give it one under privacy.fields: public, drop, time, count, number, category, pseudonym.",
        )
    for name in sorted(set(privacy.fields) - names):
        yield Problem(
            ("privacy", "fields", name),
            f"there is no field {name!r}.",
            "List it under event.fields or remove it.",
        )
    for part, given in (("unit", privacy.unit), ("of", privacy.contribution.of)):
        path: Loc = ("privacy", "unit") if part == "unit" else ("privacy", "contribution", "of")
        for name in given:
            if name not in names:
                yield Problem(path, f"{name!r} is not a field.", "Name fields of the event.")
            elif part == "unit" and event.fields[name].type not in ("string", "int"):
                yield Problem(  # -0.0 and 0.0, or NaN, would be one unit with two budgets
                    path, f"{name!r} cannot name a unit: it is no string or int.", "Choose other fields."
                )
    rule = privacy.fields.get(event.time.field)
    if rule is not None and not isinstance(rule, Time):
        yield Problem(
            ("privacy", "fields", event.time.field),
            "the event time needs a public grid: it makes the slots.",
            "Write {time: 5min}.",
        )
    for name, rule in privacy.fields.items():
        if name in names and event.fields[name].type not in TYPES.get(rule.kind, (event.fields[name].type,)):
            yield Problem(
                ("privacy", "fields", name),
                f"{rule.kind} does not fit a field of type {event.fields[name].type}.",
                f"It takes {' or '.join(TYPES[rule.kind])}.",
            )


def _mapping(contract: Contract) -> Iterator[Problem]:
    rules = contract.privacy.fields
    records = {contract.shares.model}
    for attribute, operator in contract.targets.items():
        path: Loc = ("shares", "map", attribute)
        for name in scaled(operator):
            if name in rules and not _number(contract, name):
                yield Problem(
                    path, f"{name!r} is no number and cannot be scaled.", "Map it as it is, or with a table."
                )
        for record in records_of(operator, attribute):
            if record in records:
                yield Problem(
                    path,
                    f"two records would have the name {record!r}, which Avro allows once.",
                    "Rename the attribute: a record is named after the model, or after its attributes joined by `_`.",
                )
            records.add(record)
        for name in fields_of(operator):
            if name not in rules:
                yield Problem(path, f"there is no field {name!r}.", "Map fields of the event.")
            elif rules[name].kind == "drop":
                yield Problem(path, f"{name!r} is dropped and cannot be shared.", "Give it another rule.")
    time = contract.event.time.field
    if contract.shares.map is not None and not any(
        operator.op == "rename" and operator.field == time for operator in contract.targets.values()
    ):
        yield Problem(
            ("shares", "map"),
            "no attribute carries the event time, without which nobody can learn from it.",
            f"Map one attribute to {time}.",
        )


def _number(contract: Contract, name: str) -> bool:
    """Whether a field is a number once it is noised; true and false count as 1 and 0."""
    kind = contract.privacy.fields[name].kind
    return kind in ("count", "number") or (
        kind in ("public", "drop") and contract.event.fields[name].type in ("int", "float", "bool")
    )


def warnings(contract: Contract) -> Iterator[str]:
    """Allowed, but may tell more than it seems to."""
    event, privacy = contract.event, contract.privacy
    if contract.mode == "open":
        yield "mode: open: nothing is noised and nobody is protected."
        return
    for name, rule in privacy.fields.items():
        if rule.kind == "public" and name not in (event.key, event.time.field) and not rule.because:
            yield (
                f"{name} is public beside noised fields. Is it computed from the same {privacy.protects}s "
                "(as occupancy is from the cars that a count noises)? Then it undoes the noise. If not, "
                "write {public: {because: ...}}."
            )
        if rule.kind == "time" and name != event.time.field:
            yield (
                f"{name} is public to {duration_text(rule.grid_ms)} beside noised fields: do not keep it where it "
                f"follows from the same {privacy.protects}s, as the end of a trip follows from its length."
            )
        if rule.kind == "pseudonym":
            yield from _pseudonym(contract, name)
        if rule.kind == "public" and name in privacy.unit:
            yield f"{name} identifies a {privacy.protects} and is public: who sent, and when, is not hidden."
        if isinstance(rule, Count | Number) and rule.sensitivity < rule.range:
            yield from _missing(contract, name, rule)
        if isinstance(rule, Count | Number) and rule.metric and rule.sensitivity < rule.range:
            yield (
                f"{name}: metric privacy. Values d apart lose epsilon x d / {rule.sensitivity * rule.step}: "
                "only small differences are hidden."
            )
    if privacy.epsilon > 5:
        yield f"epsilon {privacy.epsilon} moves the odds by more than x148: hardly a promise."


def _pseudonym(contract: Contract, name: str) -> Iterator[str]:
    """What a pseudonym tells although it changes with every epoch."""
    event, privacy = contract.event, contract.privacy
    if name == event.key and contract.partitions > 1:
        yield (
            f"{name}: records lie in one of {contract.partitions} partitions by a public hash of the {name} behind "
            "the pseudonym. That is the same in every epoch, and tells who it is not. One partition tells nothing."
        )
    if name == event.key and not privacy.unit:
        yield (
            f"{name} is hidden behind a pseudonym, but no unit is named. If it tells a {privacy.protects}, write "
            f"unit: [{name}] and held_by: ledger: what is assumed about it nobody checks."
        )
    if name != event.key and name not in privacy.unit:
        yield (
            f"{name}: a pseudonym is not noise. Equal values look equal within an epoch, so frequent and rare ones "
            "can be told by how often they come; a category is noised."
        )


def _missing(contract: Contract, name: str, rule: Count | Number) -> Iterator[str]:
    """An aggregate that is missing where nobody was there: one unit moves it from its default to 1."""
    nothing = min(max(int(-(rule.lower // rule.step)), 0), rule.range)
    given = contract.event.fields[name].default
    if rule.default_index != nothing or (given is not None and given != 0):
        yield (
            f"{name}: a missing value becomes {rule.default if given is None else given}, not 0. Where missing means "
            f"that there was nobody, one {contract.privacy.protects} moves it by more than is noised: fill in 0 at "
            "the source, or say default: 0."
        )
