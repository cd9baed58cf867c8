"""What a contract may not say, and what it should think twice about: each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.rules import MAX_RANGE, Category, Count, Number, Time
from schemas.targets import fields_of
from schemas.text import Loc, line_of
from schemas.units import duration_text

if TYPE_CHECKING:
    from pydantic import ValidationError

    from schemas.contract import Contract

TYPES = {
    "count": ("int",),
    "number": ("int", "float"),
    "category": ("string",),
    "pseudonym": ("string", "int"),
    "time": ("timestamp",),
}
RECORD_LEVEL = ("-interval", "-pass", "-event", "-reading", "-record", "-trip")


class Problem(NamedTuple):
    path: Loc
    message: str
    remedy: str


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
    return found or [*_promise(contract), *_fields(contract), *_mapping(contract)]


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
    for name in names - set(privacy.fields):
        yield Problem(
            ("event", "fields", name),
            f"the field {name!r} has no rule.",
            "Give it one under privacy.fields: public, drop, time, count, number, category, pseudonym.",
        )
    for name in set(privacy.fields) - names:
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


def _promise(contract: Contract) -> Iterator[Problem]:
    event, privacy = contract.event, contract.privacy
    held, time = privacy.contribution, privacy.fields[event.time.field]
    assert isinstance(time, Time)
    if privacy.epoch.length_ms % time.grid_ms:
        yield Problem(
            ("privacy", "epoch"),
            "the epoch is not a whole number of time slots.",
            f"Choose a length that is a multiple of {duration_text(time.grid_ms)}.",
        )
    elif privacy.epoch.anchor_ms % time.grid_ms:
        yield Problem(
            ("privacy", "epoch"), "the epoch does not start on a time slot.", "Move its anchor to one."
        )
    if contract.mode == "open":
        return
    if privacy.epsilon <= 0:
        yield Problem(
            ("privacy", "epsilon"),
            "epsilon must be greater than 0.",
            "Values around 1 are usual; mode: open shares without a promise.",
        )
    if not privacy.private_fields:
        yield Problem(
            ("privacy", "fields"),
            "no field is noised, so nothing is protected.",
            "Give a field count, number or category, or say mode: open.",
        )
    if privacy.neighbours == "presence":
        yield Problem(
            ("privacy", "neighbours"),
            "sharing each event cannot hide that an event exists.",
            "Write neighbours: values. Hiding presence needs windows with public keys.",
        )
    if held.held_by == "bounder":
        yield Problem(
            ("privacy", "contribution", "held_by"),
            "the bounder belongs to windows.",
            "Write ledger where events carry the unit, else assumed.",
        )
    if held.held_by == "ledger" and not privacy.unit:
        yield Problem(
            ("privacy", "contribution", "held_by"),
            "the ledger cannot count units that the events do not carry.",
            "Name the fields that identify one under privacy.unit, or write held_by: assumed with basis and "
            "attested_by.",
        )
    if held.held_by == "assumed" and privacy.unit:
        yield Problem(
            ("privacy", "contribution", "held_by"),
            "the events carry the unit, so nothing needs to be assumed.",
            "Write held_by: ledger.",
        )
    needed = {event.time.field} if privacy.unit else {event.time.field, event.key}
    if not needed <= set(held.of):
        lacking = ", ".join(sorted(needed - set(held.of)))
        yield Problem(
            ("privacy", "contribution"),
            f"a {privacy.protects} is not protected: its records are not counted over "
            f"{lacking}, so it may add more than {held.max}.",
            f"Write of: [{', '.join(sorted(needed | set(held.of)))}] and a max that holds for one whole epoch.",
        )
    if privacy.epoch.length_ms <= time.grid_ms and not privacy.protects.endswith(RECORD_LEVEL):
        yield Problem(
            ("privacy", "protects"),
            f"a {privacy.protects} is not protected by a promise about one "
            f"{duration_text(time.grid_ms)} slot.",
            f"Choose a longer epoch (a day), or say what is protected: {privacy.protects}-interval.",
        )


def _fields(contract: Contract) -> Iterator[Problem]:
    event, privacy = contract.event, contract.privacy
    for name, rule in privacy.fields.items():
        path: Loc = ("privacy", "fields", name)
        if name == event.key and rule.kind not in ("public", "pseudonym"):
            yield Problem(
                path, "the key of shared records must be readable.", "Make it public or a pseudonym."
            )
        if name in privacy.unit and rule.kind not in ("public", "pseudonym", "drop"):
            yield Problem(
                path,
                "a field that identifies the unit cannot be noised.",
                "Make it drop, pseudonym or public.",
            )
        if contract.mode == "open" and rule.kind not in ("public", "drop", "time"):
            yield Problem(
                path, f"mode: open noises nothing, so {rule.kind} cannot hold.", "Use public or drop."
            )
            continue
        if isinstance(rule, Count | Number | Category) and privacy.epsilon > 0 and rule.nano_epsilon < 1:
            yield Problem(path, "its part of epsilon rounds to nothing.", "Raise epsilon or lower the max.")
        if isinstance(rule, Count | Number):
            yield from _numeric(contract, path, rule)


def _numeric(contract: Contract, path: Loc, rule: Count | Number) -> Iterator[Problem]:
    dyadic = rule.step.as_integer_ratio()
    if contract.event.fields[str(path[-1])].type == "float" and (
        dyadic[0] & (dyadic[0] - 1) or dyadic[1] & (dyadic[1] - 1)
    ):
        yield Problem(
            path,
            f"the step {rule.step} has no exact binary form, and floor(x / step) misses in floats.",
            "Use a power of two: 0.125, 0.25, 0.5, 1, 2, 4.",
        )
        return
    if rule.step % 1 and contract.event.fields[str(path[-1])].type == "int":
        yield Problem(path, "whole numbers need a whole step.", "Use step: 1 or more.")
        return
    if not 1 <= rule.range <= MAX_RANGE or rule.range + rule.margin > MAX_RANGE:
        yield Problem(
            path,
            f"{rule.range} steps and a margin of {rule.margin}: tables are proved for 1 to {MAX_RANGE}.",
            "Choose a coarser step, other bounds or a smaller margin.",
        )
    elif rule.sensitivity > rule.range:
        yield Problem(
            path,
            f"one unit moves {rule.sensitivity} steps, more than the range of {rule.range}.",
            "The range is the most that any value can move: lower per_unit or widen the bounds.",
        )
    elif rule.sensitivity < rule.range and not rule.metric:
        if contract.privacy.unit:
            yield Problem(
                path,
                "the record is one unit's own reading, and all of it can differ: a sensitivity below the "
                "range protects small differences only (metric privacy).",
                "Leave per_unit and sensitivity out, or add metric: true to promise just that.",
            )
        elif isinstance(rule, Number) and rule.distance is not None:
            yield Problem(
                path,
                "a sensitivity below the range is metric privacy.",
                "Write per_unit, the most one unit adds to an aggregate, or add metric: true.",
            )


def _mapping(contract: Contract) -> Iterator[Problem]:
    rules = contract.privacy.fields
    for attribute, operator in contract.targets.items():
        path: Loc = ("shares", "map", attribute)
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


def warnings(contract: Contract) -> Iterator[str]:
    """Allowed, but may tell more than it seems to."""
    event, privacy = contract.event, contract.privacy
    if contract.mode == "open":
        yield "mode: open: nothing is noised and nobody is protected."
        return
    for name, rule in privacy.fields.items():
        if rule.kind == "public" and name not in (event.key, event.time.field) and not rule.because:
            yield (
                f"{name} is public beside noised fields. Is it computed from the same {privacy.protects}s (as "
                "occupancy is from the cars that a count noises)? Then it undoes the noise. If not, write "
                "{public: {because: ...}}."
            )
        if rule.kind == "public" and name in privacy.unit:
            yield f"{name} identifies a {privacy.protects} and is public: who sent, and when, is not hidden."
        if isinstance(rule, Count | Number) and rule.metric and rule.sensitivity < rule.range:
            yield (
                f"{name}: metric privacy. Values d apart lose epsilon x d / {rule.sensitivity * rule.step}: only "
                "small differences are hidden."
            )
    if privacy.epsilon > 5:
        yield f"epsilon {privacy.epsilon} moves the odds by more than x148: hardly a promise."


def render(problems: list[Problem], lines: dict[Loc, int], name: str) -> tuple[str, str]:
    """All problems as one message with lines and paths, and the remedies in the same order."""
    said, remedies = [], []
    for problem in problems:
        path, line = line_of(problem.path, lines)
        said.append(f"{name}:{line}: {path}: {problem.message}")
        remedies.append(problem.remedy)
    return "\n".join(said), "\n  -> ".join(dict.fromkeys(remedies))


def explain(error: ValidationError, lines: dict[Loc, int], name: str) -> tuple[str, str]:
    """pydantic's findings in our words: where, what, and what to do. Inputs are never repeated."""
    problems = []
    for found in error.errors(include_input=False, include_url=False, include_context=False):
        kind, message = found["type"], found["msg"].removeprefix("Value error, ")
        remedy = "Correct that line."
        if kind == "extra_forbidden":
            message, remedy = "this key is not known here.", "Remove it or correct its spelling."
        elif kind == "missing":
            message, remedy = (
                "this key is missing.",
                "Add it; `sluice contract new` writes a complete file.",
            )
        problems.append(Problem(tuple(found["loc"]), message, remedy))
    return render(problems, lines, name)
