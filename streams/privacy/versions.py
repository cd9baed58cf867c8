"""Which version of a contract shares which epochs: each epoch belongs to one, for good.

The ledger binds an epoch to its privacy section within one topic. Another major version has topics and a ledger
of its own, and so has the same version on a new cluster or with a lost ledger; there, every slot that the old
one has shared would get a second answer, and epsilon would count twice. So before a worker begins an epoch it
notes here, beside the keys, that this version has come so far; another version begins behind that. It is noted
before anything is produced, so that aborted transactions count too.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from schemas.units import MS
from streams.privacy import keystore
from streams.privacy.words import canonical

if TYPE_CHECKING:
    from schemas.contract import Contract
    from streams.privacy.plan import Plan

AHEAD_MS = MS["d"]  # noted at once, so that short epochs do not write a file each


class Versions:
    """One worker's view of its contract's file. What lies before `reached_ms` never changes. Not
    thread safe.
    """

    def __init__(self, file: Path, plan: Plan, name: str) -> None:
        self._file, self._plan, self._name = file, plan, name
        self._known: dict[str, Any] = {}

    @classmethod
    def open(cls, home: Path, contract: Contract, plan: Plan) -> Self:
        """Begin or go on. A version that was not the last one begins where any other has come to."""
        identity = {"major": plan.major, "population": contract.privacy.population, "c": plan.c_digest.hex()}
        name = hashlib.sha256(canonical(identity)).hexdigest()
        versions = cls(keystore.beside(home, contract.contract, "versions.json"), plan, name)
        with keystore.locked(versions._file):
            known = keystore.load(versions._file) or {"format": 1, "reached_ms": None, "versions": []}
            if known["reached_ms"] is None:  # nobody has shared anything
                known["versions"] = [[None, name]]
            elif known["versions"][-1][1] != name:
                known["versions"].append([known["reached_ms"], name])
            keystore.store(versions._file, known)
        versions._known = known
        return versions

    @property
    def begins_ms(self) -> int | None:
        """Where the part begins that the version opened last owns."""
        begins: int | None = self._known["versions"][-1][0]
        return begins

    def own(self, epoch: int) -> bool:
        """Whether this version may share events of an epoch. True is noted first, durably."""
        start = self._plan.anchor_ms + epoch * self._plan.length_ms
        end = start + self._plan.length_ms
        reached = self._known["reached_ms"]
        if reached is not None and end <= reached:
            return self._owner(start, end)
        with keystore.locked(self._file):
            known = self._known = keystore.load(self._file) or self._known
            if not self._owner(start, end):
                return False
            ahead = max(end, start + AHEAD_MS)
            known["reached_ms"] = ahead if known["reached_ms"] is None else max(ahead, known["reached_ms"])
            keystore.store(self._file, known)
        return True

    def _owner(self, start: int, end: int) -> bool:
        """Whether the whole of it lies in one part that is ours."""
        versions = self._known["versions"]
        begins = [begin for begin, _ in versions[1:]]
        first, last = bisect_right(begins, start), bisect_right(begins, end - 1)
        return first == last and bool(versions[first][1] == self._name)
