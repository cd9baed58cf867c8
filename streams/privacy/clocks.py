"""How far every partition of every contract of a population has come, beside its key: what may be destroyed.

An epoch's key goes when its end plus `keep.raw` lies before the smallest *committed* clock of them all: no
event of it can be admitted any more, not even in the replay of a batch that was never committed (should a
publisher begin anew with an older clock, its events are denied). And not before `keep.raw` of wall time has
passed since that end, and since this file was begun: raw topics hold their records so long anyway, one
clock record far ahead can end nothing that is still to come, and old data of several contracts of a
population can be replayed one after the other.

A contract is known here from its first worker on. One that has no clock yet, or no longer runs, holds
destruction back. Deleting the file is safe: it begins anew with the contracts that run then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from streams.privacy import keystore

if TYPE_CHECKING:
    from schemas.contract import Contract


class Clocks:
    """One contract's part in its population's file, which is read anew at each use."""

    def __init__(self, file: Path, contract: Contract) -> None:
        self._file, self._contract = file, contract

    @classmethod
    def open(cls, home: Path, contract: Contract, now_ms: int) -> Self:
        """Make the contract known, all of its partitions without a clock. A new major version takes the place
        of the old one. Raises KeyStoreError where the file is damaged."""
        clocks = cls(keystore.beside(home, contract.privacy.population, "clocks.json"), contract)
        clocks.report({}, now_ms)
        return clocks

    def report(self, clock_ms: Mapping[int, int], now_ms: int) -> int | None:
        """Note committed clocks (ms, -1 none) of partitions that this worker owns now.

        Returns the oldest epoch that must live on, for `KeyChain.destroy_before`; None: nothing may go yet.
        """
        contract = self._contract
        with keystore.locked(self._file):
            before = keystore.load(self._file)
            known: dict[str, Any] = before or {"format": 1, "begun_ms": now_ms, "contracts": {}}
            contracts = dict(known["contracts"])
            mine = contracts.get(contract.contract)
            if mine is None or mine["topic"] != contract.topics.raw or len(mine["at"]) != contract.partitions:
                mine = {"topic": contract.topics.raw, "at": [-1] * contract.partitions}
            at = [clock_ms.get(partition, clock) for partition, clock in enumerate(mine["at"])]
            contracts[contract.contract] = {**mine, "keep_raw_ms": contract.keep.raw_ms, "at": at}
            known = {**known, "contracts": contracts}
            if known != before:
                keystore.store(self._file, known)
        clocks = [(min(each["at"]), each["keep_raw_ms"]) for each in contracts.values()]
        kept = max(keep for _, keep in clocks)
        if min(clock for clock, _ in clocks) < 0 or now_ms <= known["begun_ms"] + kept:
            return None
        epoch = contract.privacy.epoch
        return min(epoch.oldest_open(min(clock, now_ms), keep) for clock, keep in clocks)
