"""`share()` on the first rows of a source with keys that are thrown away: what would leave, and what it
costs."""

from __future__ import annotations

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
from streams.privacy.keys import KeyChain
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, share


@dataclass(frozen=True, slots=True)
class Trial:
    """`pairs`: raw record beside what would be shared of it (None: denied), for the owner's eyes only."""

    events: int
    shared: int
    denied: dict[str, int]
    rejected: int
    pairs: list[tuple[dict[str, Any], dict[str, Any] | None]]
    losses: list[Loss]
    notes: dict[str, int]


def run(
    contract: Contract, root: bytes, *, limit: int = 20_000, show: int = 10, source: Path | None = None
) -> Trial:
    """`root`: 32 random bytes, thrown away after. Each event meets the clock of its own time."""
    found = rows.read(contract, limit, source)
    plan, privacy = Plan.of(contract), contract.privacy
    times = found.batch.column(contract.event.time.field).cast(pa.int64()).to_numpy()
    first = int(plan.epoch(int(times.min()))) if len(times) else 0
    keys = KeyChain.of_root(privacy.population, plan.length_ms, plan.anchor_ms, first, root)
    batch = RawBatch(found.batch, found.keys, np.maximum(times, 0))
    result = share(batch, plan, keys, Ledger())
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
    return Trial(
        events=found.batch.num_rows,
        shared=len(result.shared_rows),
        denied=result.denied,
        rejected=found.broken + len(result.rejected),
        pairs=pairs,
        losses=[one for one in losses if one is not None],
        notes=result.notes,
    )
