"""The noise keys of one population: a forward-only chain of epoch roots under `$SLUICE_HOME/keys`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.contract import Contract


class KeyChain:
    """Oldest live epoch and its root; every younger root follows from it, no older one does."""

    @classmethod
    def open(cls, home: Path, contract: Contract, now_ms: int) -> KeyChain:
        """Open the population's chain, or begin one. Raises KeyStoreError when the file is damaged or does not fit."""
        raise NotImplementedError

    @property
    def oldest(self) -> int:
        """The oldest epoch that still has a key."""
        raise NotImplementedError

    def check_value(self, epoch: int) -> bytes:
        raise NotImplementedError

    def destroy_before(self, epoch: int) -> None:
        """Move the chain forward on disk and in memory: keys of epochs below `epoch` are gone for good."""
        raise NotImplementedError
