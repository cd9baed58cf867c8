"""share(): one unit, one spelling, one partition, one ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import ContractError
from schemas.partition import normal, partition
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, share
from tests.privacy_cases import UNIT_RULES, chain, contract, counter, raw, run, walk

WALKS = contract()
PLAN = Plan.of(WALKS)


def test_units_are_normalised_as_declared() -> None:
    of = contract(more="normalise: [nfc, trim, lower]")
    rows = [walk("Zoé"), walk(" zoe\u0301 "), walk("ZOÉ", slot=1)]
    result = share(raw(of, rows), Plan.of(of), chain(), Ledger())
    assert result.denied == {"slot-used": 1}
    assert result.shared_rows.tolist() == [0, 2]


@pytest.mark.parametrize("of", [contract(more="normalise: [nfc, trim, lower]", top="partitions: 3"), None])
def test_a_unit_is_shared_from_one_partition_only(of: Any) -> None:
    """Each partition has its own ledger: a second one for a unit would share its slots twice. Whoever writes
    the records, and however the unit is spelled; where the unit is not in the data, the key stands for it.
    """
    of = of or counter(top="partitions: 3")
    plan, key = Plan.of(of), of.event.key
    names = [f"Zo\u00eb {i}" for i in range(20)]
    rows = [walk(name) | {"detector": name, "vehicles": 3} for name in names]
    spelled = [row | {"person": f" ZOE\u0308 {i} "} for i, row in enumerate(rows)] if plan.unit else rows
    shared = Counter[str]()
    for place in range(3):
        ledger = Ledger()
        for each in (rows, spelled):
            batch = raw(of, each)
            keys = [str(row[key]).encode() for row in each]
            placed = RawBatch(batch.columns, keys, batch.clock_ms, place)
            result = run(placed, plan, chain(), ledger)
            shared.update(names[i] for i in result.shared_rows.tolist())
            assert {reason for _, reason in result.rejected} == {"wrong-partition"}
            assert len(result.rejected) + len(result.shared_rows) + sum(result.denied.values()) == 20
    assert shared == Counter(names)


def test_a_partition_that_the_contract_does_not_know_shares_nothing() -> None:
    """The topic was given more by hand."""
    batch = replace(raw(WALKS, [walk()]), partition=1)
    assert share(batch, PLAN, chain(), Ledger()).rejected == [(0, "wrong-partition")]
    assert share(replace(batch, partition=0), PLAN, chain(), Ledger()).rejected == []


def test_what_the_producer_partitions_is_what_the_agent_expects() -> None:
    """One field in normal form: as Kafka's own partitioners would have it, so that any producer can write."""
    of = contract(more="normalise: [nfc, trim, lower]", top="partitions: 3")
    plan = Plan.of(of)
    for name in ("ann", " Ann", "zo\u00eb"):
        home = partition(normal(name, plan.normalise).encode(), 3)
        batch = raw(of, [walk(name)])
        assert share(replace(batch, partition=home), plan, chain(), Ledger()).shared.num_rows == 1


def test_units_spread_over_partitions_are_refused() -> None:
    with pytest.raises(ContractError, match="partitions"):
        Plan.of(contract(key="place", rules=UNIT_RULES, top="partitions: 2"))
    Plan.of(contract(key="place", rules=UNIT_RULES))
