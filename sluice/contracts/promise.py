"""What a contract promises, in the words of docs/privacy.md: as data, and as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.contract import Contract
from schemas.promises import RECORD_LEVEL
from schemas.rules import Category, Count, Number, Time
from schemas.units import MS, duration_text
from sluice.contracts.law import kept, strength

NO_PROMISE = 20.0  # e^20 is 485 million: nothing is hidden then


@dataclass(frozen=True, slots=True)
class Line:
    """One paragraph: its word in capitals, and the sentence."""

    word: str
    text: str


def odds(epsilon: float) -> str:
    """x2.72 for 1; `no promise` where the factor says nothing any more."""
    if epsilon >= NO_PROMISE:
        return "no promise"
    factor = math.exp(epsilon)
    return f"x{factor:,.0f}" if factor >= 100 else f"x{factor:.3g}"


def number(value: float) -> str:
    return f"{value:.4g}"


def sentence(contract: Contract) -> str:
    """The promise in one sentence."""
    privacy = contract.privacy
    if contract.mode == "open":
        return "Nothing is noised: what the contract names as public is shared as it is, and nobody is protected."
    return (
        f"Whoever reads everything shared and knows all other records moves the odds of any guess about the values "
        f"of {subject(contract)} by at most {odds(float(privacy.epsilon))} (epsilon {privacy.epsilon})."
    )


def subject(contract: Contract) -> str:
    """What is protected: a unit in an epoch, or one record of it where the promise goes no further."""
    privacy = contract.privacy
    who, epoch = privacy.protects, duration_text(privacy.epoch.length_ms)
    if who.endswith(RECORD_LEVEL):
        return f"one {who.replace('-', ' ')}, not of all records of one {who.rpartition('-')[0]}"
    most = privacy.contribution.max
    return f"one {who} in one epoch of {epoch} (its at most {most} record{'s' if most > 1 else ''})"


def lines(contract: Contract) -> Iterator[Line]:
    """The whole promise. Raises ContractError where the tables cannot be built or proved."""
    from streams.privacy.engines import engine

    privacy = contract.privacy
    if contract.mode == "open":
        yield Line("OPEN", sentence(contract))
        yield Line("PUBLIC", ", ".join(_public(contract)))
        return
    held, epsilon = privacy.contribution, float(privacy.epsilon)
    of = f", told apart by {', '.join(held.of)}" if held.of else ""
    yield Line("PROTECTED", f"{subject(contract)}{of}. Values only: that a record exists is not hidden.")
    yield Line("PROMISE", sentence(contract))
    record = epsilon / held.max
    counts = {1, held.max} if held.held_by == "ledger" else {1, held.max, 10, 40}  # the ledger admits no more
    more = "; ".join(f"{k}: epsilon {number(k * record)}, {odds(k * record)}" for k in sorted(counts))
    epochs = MS["y"] // privacy.epoch.length_ms
    year = (
        f"a year of {epochs} epochs adds up to epsilon {number(epochs * epsilon)}, {odds(epochs * epsilon)}"
    )
    yield Line("COUNTED", f"records of one {privacy.protects} in one epoch: {more}; {year}.")
    yield Line(
        "TOTAL", f"epsilon {privacy.epsilon} per {privacy.protects} and epoch is all that this file shares; other "
        f"contracts of the population {privacy.population} add theirs.",
    )  # fmt: skip
    if held.held_by == "ledger":
        unit = ", ".join(privacy.unit)
        yield Line(
            "HELD", f"by the ledger: record {held.max + 1} of one {privacy.protects} ({unit}) is denied."
        )
    else:
        yield Line(
            "ASSUMED", f"not checked: one {privacy.protects} adds to at most {held.max}. Basis: {held.basis}. "
            f"Attested by: {held.attested_by}.",
        )  # fmt: skip
    yield Line(
        "PUBLIC", f"{', '.join(_public(contract))}, and that a record exists, in which order and how many."
    )
    for name, rule in privacy.private_fields.items():
        yield from _noised(name, rule, privacy.protects)
    dropped = [name for name, rule in privacy.fields.items() if rule.kind == "drop"]
    if dropped:
        yield Line("DROPPED", f"{', '.join(dropped)}: stays in raw.")
    delta = "; delta 0" if privacy.engine == "exact" else ""
    yield Line(
        "KIND", f"computational: it holds until the noise key leaks, and for old epochs until it is destroyed{delta}. "
        "Not covered: writers that lie about units.",
    )  # fmt: skip
    used = engine(privacy.engine)
    yield Line("ENGINE", f"{used.name}. {used.guarantees} {used.limits}".strip())


def _public(contract: Contract) -> list[str]:
    shown = []
    for name, rule in contract.privacy.fields.items():
        if isinstance(rule, Time):
            shown.append(f"{name} (to {duration_text(rule.grid_ms)})")
        elif rule.kind == "public":
            shown.append(f"{name}{' (the key)' if name == contract.event.key else ''}")
        elif rule.kind == "pseudonym":
            shown.append(f"{name} (as a pseudonym, new in every epoch)")
    return shown


def _noised(name: str, rule: Count | Number | Category, who: str) -> Iterator[Line]:
    epsilon = number(rule.nano_epsilon * 1e-9)
    if isinstance(rule, Category):
        chance = f"the true one with chance {kept(rule):.1%}"
        yield Line("NOISED", f"{name}: one of {len(rule.members)} members, {chance} (epsilon {epsilon}).")
        return
    found = strength(rule)
    moved = "all of it" if rule.sensitivity == rule.range else number(float(rule.sensitivity * rule.step))
    low, high = rule.bounds
    tiny = 1e-9 * float(rule.range * rule.step)  # what sums of floats leave of 0
    bias = " / ".join(f"{b if abs(b) > tiny else 0.0:+.3g}" for b in found.bias)
    on = " / ".join(f"{share:.0%}" for share in found.on_bounds)
    yield Line(
        "NOISED", f"{name}: {rule.min} to {rule.max} in steps of {rule.step}, of which one {who} moves {moved}; "
        f"epsilon {epsilon} a value, noise of standard deviation {number(found.spread)}. Shared: {low} to {high}. "
        f"At the lower bound, the middle and the upper bound: bias {bias}; on a bound {on}.",
    )  # fmt: skip
    if found.on_bounds[1] > 0.5:
        yield Line(
            "WARNING", f"{name}: the noise is wider than the range, so one value says next to nothing. Share fewer "
            "records or fields per epoch, coarser sums, or write output: wide, which keeps averages right.",
        )  # fmt: skip


def report(contract: Contract, unread: list[str] | None) -> dict[str, Any]:
    """The same for machines. `unread`: source columns that the contract does not name, None when unknown."""
    privacy = contract.privacy
    fields = contract.public()["fields"]
    for name, rule in privacy.private_fields.items():
        if isinstance(rule, Category):
            fields[name]["kept"] = kept(rule)
        else:
            fields[name] |= strength(rule).as_json()
    return {
        "contract": contract.contract,
        "version": contract.version,
        "mode": contract.mode,
        "promise": sentence(contract),
        "lines": [{"word": line.word, "text": line.text} for line in lines(contract)],
        "epsilon": str(privacy.epsilon),
        "protects": privacy.protects,
        "population": privacy.population,
        "fields": fields,
        "topics": contract.topics.model_dump(),
        "terms_digest": contract.terms_digest,
        "warnings": list(contract.warnings),
        "not_read": unread,
    }
