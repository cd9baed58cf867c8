"""What a contract's privacy section means, worked out and proved once, when it loads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.errors import ContractError
from schemas.rules import Time
from streams.privacy.engines import engine
from streams.privacy.fields import Projection, plain, projection
from streams.privacy.words import canonical

if TYPE_CHECKING:
    from schemas.contract import Contract

INDEX_LIMIT = 1 << 52


@dataclass(frozen=True, slots=True)
class Plan:
    """All that `share()` needs to know of a contract.

    `canonical` is C, the privacy section as canonical JSON, `c_digest` its SHA-256: it enters the noise
    key, and an epoch is bound to it. `cap` is m where the ledger holds the bound, else None. `calls` is the
    number of noise words an event takes. Times in milliseconds.
    """

    mode: str
    topic: str
    major: int
    partitions: int
    key: str
    time: str
    grid_ms: int
    unit: tuple[str, ...]
    normalise: tuple[str, ...]
    cap: int | None
    length_ms: int
    anchor_ms: int
    keep_raw_ms: int
    fields: tuple[Projection, ...]
    calls: int
    canonical: bytes = field(repr=False)
    c_digest: bytes

    @classmethod
    def of(cls, contract: Contract) -> Plan:
        """Build and prove the tables. Raises ContractError where a promise cannot be kept."""
        privacy, event = contract.privacy, contract.event
        rule = privacy.fields[event.time.field]
        if not isinstance(rule, Time):
            raise ContractError("The event time has no public grid.", "Write {time: 5min} for it.")
        _check(contract, rule.grid_ms)
        noise = engine(privacy.engine)
        found = [
            projection(name, spec, privacy.fields[name], contract.topics.shared, noise)
            for name, spec in event.fields.items()
        ]
        shared = tuple(one for one in found if one is not None)
        ids = {name: spec.id for name, spec in event.fields.items()}
        c = canonical(_section(contract, shared, ids))
        return cls(
            mode=contract.mode,
            topic=contract.topics.shared,
            major=contract.major,
            partitions=contract.partitions,
            key=event.key,
            time=event.time.field,
            grid_ms=rule.grid_ms,
            unit=privacy.unit,
            normalise=privacy.normalise if privacy.unit else (),
            cap=privacy.contribution.max if privacy.contribution.held_by == "ledger" else None,
            length_ms=privacy.epoch.length_ms,
            anchor_ms=privacy.epoch.anchor_ms,
            keep_raw_ms=contract.keep.raw_ms,
            fields=shared,
            calls=2 * sum(one.private for one in shared),  # an engine may take a second word, rarely
            canonical=c,
            c_digest=hashlib.sha256(c).digest(),
        )

    def epoch(self, time_ms: int) -> int:
        """The epoch of an event time or a clock."""
        return (time_ms - self.anchor_ms) // self.length_ms


def _section(contract: Contract, shared: tuple[Projection, ...], ids: dict[str, int]) -> dict[str, Any]:
    privacy, event = contract.privacy, contract.event
    held = privacy.contribution
    return {
        # What makes a unit and a slot: read from elsewhere, the same record would be shared in a second one.
        "read": {
            str(ids[name]): event.fields[name].column for name in (event.key, event.time.field, *privacy.unit)
        },
        "format": event.time.format,
        "zone": event.time.zone or "",
        "contribution": {"held_by": held.held_by, "max": held.max, "of": [ids[name] for name in held.of]},
        "engine": privacy.engine,
        "epoch": {"anchor_ms": privacy.epoch.anchor_ms, "length_ms": privacy.epoch.length_ms},
        "epsilon": plain(privacy.epsilon),
        "fields": [one.facts for one in shared],
        "key": ids[contract.event.key],
        "mode": contract.mode,
        "neighbours": privacy.neighbours,
        "normalise": list(privacy.normalise),
        "protects": privacy.protects,
        "time": ids[contract.event.time.field],
        "unit": [ids[name] for name in privacy.unit],
    }


def _check(contract: Contract, grid_ms: int) -> None:
    """What the loader refuses too, or cannot know: these would break release-once without a sound."""
    privacy, key = contract.privacy, contract.event.key
    if privacy.epoch.length_ms % grid_ms or privacy.epoch.anchor_ms % grid_ms:
        raise ContractError(
            "The time grid does not divide the epoch: a slot would be shared under two keys.",
            "Choose an epoch length and anchor that are multiples of the time grid.",
        )
    if privacy.unit and key not in privacy.unit and contract.partitions > 1:
        raise ContractError(
            f"Events are spread over {contract.partitions} partitions by {key!r}, which is no part of the "
            "unit: no partition's ledger would see all of a unit.",
            "Key the events by the unit, or use one partition.",
        )
    for name, rule in privacy.private_fields.items():
        if rule.kind != "category" and abs(rule.lower_index) + rule.range + rule.margin > INDEX_LIMIT:
            raise ContractError(
                f"The bounds of {name!r} are too large for its step: cells must count below 2^52.",
                "Choose a coarser step or smaller bounds.",
            )
