"""Refusals about the promise itself: what would not hold, field by field (docs/privacy.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from schemas.findings import Problem
from schemas.rules import MAX_RANGE, Category, Count, Number, Time
from schemas.text import Loc
from schemas.units import duration_text

if TYPE_CHECKING:
    from schemas.contract import Contract

MAX_EPSILON = 100
NAMES_A_UNIT = ("public", "pseudonym", "drop")
SHORTEST_EPOCH_MS = 60_000  # a key chain takes a step of 1 us for every epoch since its first
RECORD_LEVEL = ("-interval", "-pass", "-event", "-reading", "-record", "-trip")


def promise(contract: Contract) -> Iterator[Problem]:
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
    if privacy.epoch.length_ms < SHORTEST_EPOCH_MS:
        yield Problem(
            ("privacy", "epoch"), "an epoch takes at least a minute.", "Write length: 1min or more."
        )
    if privacy.epsilon <= 0:
        yield Problem(
            ("privacy", "epsilon"),
            "epsilon must be greater than 0.",
            "Values around 1 are usual; mode: open shares without a promise.",
        )
    elif privacy.epsilon > MAX_EPSILON:
        yield Problem(
            ("privacy", "epsilon"),
            f"beyond {MAX_EPSILON} nothing at all is promised.",
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
    for name, field in event.fields.items() if not privacy.unit else ():
        names_it = re.sub(r"_?(id|no|nr|number|key)$", "", name.lower()) == privacy.protects.replace("-", "_")
        if names_it and field.type in ("string", "int") and privacy.fields[name].kind in NAMES_A_UNIT:
            yield Problem(
                ("privacy", "unit"),
                f"{name!r} seems to name the {privacy.protects}, so how many records one has need not be assumed.",
                f"Write unit: [{name}] and held_by: ledger; or, if it names something else, rename the field.",
            )
    needed = {event.time.field} if privacy.unit else {event.time.field, event.key}
    if not needed <= set(held.of):
        lacking = ", ".join(sorted(needed - set(held.of)))
        yield Problem(
            ("privacy", "contribution"),
            f"a {privacy.protects} is not protected: its records are not counted over "
            f"{lacking}, so it may add more than {held.max}.",
            f"Write of: [{', '.join(sorted(needed | set(held.of)))}] and a max that holds for a whole epoch.",
        )
    if privacy.epoch.length_ms <= time.grid_ms and not privacy.protects.endswith(RECORD_LEVEL):
        yield Problem(
            ("privacy", "protects"),
            f"a {privacy.protects} is not protected by a promise about one "
            f"{duration_text(time.grid_ms)} slot.",
            f"Choose a longer epoch (a day), or say what is protected: {privacy.protects}-interval.",
        )


def _as_it_is(contract: Contract) -> Iterator[Problem]:
    """A source column that leaves through one field noised and through another as it is."""
    noised = {contract.event.fields[name].column: name for name in contract.privacy.private_fields}
    for name, rule in contract.privacy.fields.items():
        twin = noised.get(contract.event.fields[name].column)
        if twin is not None and rule.kind in ("public", "time", "pseudonym"):
            yield Problem(
                ("privacy", "fields", name),
                f"it reads the same source column as {twin!r}, which is noised: the {rule.kind} one undoes that.",
                "Drop one of the two.",
            )


def fields(contract: Contract) -> Iterator[Problem]:
    event, privacy = contract.event, contract.privacy
    yield from _as_it_is(contract)
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
