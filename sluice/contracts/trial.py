"""`share()` on the first rows of a source with keys that are thrown away: what would leave, and what it
costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.contract import Contract
from schemas.mapping import Mapping
from schemas.rules import Count, Number
from sluice.contracts import rows
from sluice.contracts.forecast import Loss, loss
from sluice.contracts.rows import Rows
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, Shared, share

SLOT_USED = "slot-used"  # the reason, as streams.privacy.admission and docs/privacy.md name it
FEW = 3  # clashes that any source may have
RARE = 0.01  # of all events: an hour that a change of the clock repeats is less


@dataclass(frozen=True, slots=True)
class Trial:
    """`events` = `shared` + what was `denied` + what was `rejected`, both by reason. `clash`: what to do where
    many are denied because another one has their key and slot, else empty. `pairs`: raw record beside
    what would be shared of it (None: denied), for the owner's eyes only.
    """

    events: int
    shared: int
    denied: dict[str, int]
    rejected: dict[str, int]
    clash: str
    pairs: list[tuple[dict[str, Any], dict[str, Any] | None]]
    losses: list[Loss]
    notes: dict[str, int]


def run(
    contract: Contract, root: bytes, *, limit: int = 20_000, show: int = 10, source: Path | None = None
) -> Trial:
    """`root`: 32 random bytes, thrown away after. Each event meets the clock of its own time."""
    privacy = contract.privacy
    found, result = decide(contract, root, limit, source)
    mapping = Mapping(contract)
    leaving = [mapping.json_view(one) for one in mapping.apply(result.shared.slice(0, show)).to_pylist()]
    out = dict(zip(result.shared_rows.tolist(), leaving, strict=False))
    raw = found.batch.slice(0, show).to_pylist()
    rejected = {row for row, _ in result.rejected} | set(result.denied_rows.tolist())
    pairs = [(raw[i], out.get(i)) for i in range(len(raw)) if i in out or i in rejected]
    kept = found.batch.take(pa.array(result.shared_rows))
    losses = [
        loss(contract, name, rule, kept, result.shared)
        for name, rule in privacy.private_fields.items()
        if isinstance(rule, Count | Number)
    ]
    refused = Counter(found.broken)
    refused.update(reason for _, reason in result.rejected)
    return Trial(
        events=found.batch.num_rows + sum(found.broken.values()),
        shared=len(result.shared_rows),
        denied=result.denied,
        rejected=dict(refused),
        clash=clash(contract, found, result),
        pairs=pairs,
        losses=[one for one in losses if one is not None],
        notes=result.notes,
    )


def decide(contract: Contract, root: bytes, limit: int, source: Path | None = None) -> tuple[Rows, Shared]:
    """The first events and what becomes of each. Raises ConfigurationError where the source cannot be read."""
    found = rows.read(contract, limit, source)
    plan = Plan.of(contract)
    times = found.batch.column(contract.event.time.field).cast(pa.int64()).to_numpy()
    first = int(plan.epoch(int(times.min()))) if len(times) else 0
    keys = KeyChain.of_root(contract.privacy.population, plan.length_ms, plan.anchor_ms, first, root)
    batch = RawBatch(found.batch, found.keys, np.maximum(times, 0))
    return found, share(batch, plan, keys, Ledger())


def clash(contract: Contract, found: Rows, result: Shared) -> str:
    """Why many events are denied as `slot-used`, and what helps; empty where few are."""
    denied, events = result.denied.get(SLOT_USED, 0), found.batch.num_rows
    if denied <= max(FEW, RARE * events):
        return ""
    event, unit = contract.event, contract.privacy.unit
    names = ", ".join(unit or (event.key,))
    said = f"{denied:,} of {events:,} events share {names} and time slot with another one and are denied: "
    if unit:
        return (
            said
            + f"one {contract.privacy.protects} adds one record to a slot. Choose a finer time grid, or sum up."
        )
    return said + (
        f"the key {event.key} does not tell series apart. Where more columns do together, make one column of them "
        "in the source (site and lane: site-lane) and name it as the key; else choose a finer time grid."
    )
