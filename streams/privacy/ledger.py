"""Release once: which slots of which unit have been shared, per raw partition, in numpy columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from streams.privacy.keys import KeyChain


@dataclass(frozen=True, slots=True)
class LedgerChanges:
    """Rows and epoch headers that a batch changed. Valid for the ledger state that it was computed from."""

    def encode(self) -> bytes:
        """The changed rows as one changelog value (empty when nothing changed)."""
        raise NotImplementedError


class Ledger:
    """State of one raw partition of one contract."""

    @classmethod
    def restore(cls, records: Iterable[bytes | None]) -> Self:
        """From the values of a changelog partition in log order (tombstones are None). Raises KeyStoreError if damaged."""
        raise NotImplementedError

    def verify(self, keys: KeyChain) -> None:
        """Refuse to start (KeyStoreError) when an epoch header's key check value does not fit the keys."""
        raise NotImplementedError

    def records(self, changes: LedgerChanges) -> list[tuple[bytes, bytes | None]]:
        """Changelog records (key, value) to write, in this order, in the batch's transaction: row deltas, pages of the
        rolling snapshot, tombstones of covered deltas. Each value stays under 512 KiB. Does not change the ledger."""
        raise NotImplementedError

    def apply(self, changes: LedgerChanges) -> None:
        """Take the changes over, after the commit."""
        raise NotImplementedError

    def snapshot(self) -> Iterable[tuple[bytes, bytes]]:
        """The whole state as changelog records: headers, then every page."""
        raise NotImplementedError

    def retire(self, oldest: int) -> list[tuple[bytes, None]]:
        """Forget epochs below `oldest` (their keys are destroyed); the tombstones to write in the next transaction."""
        raise NotImplementedError
