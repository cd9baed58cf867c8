"""What a contract's privacy section means, worked out and proved once, at load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.contract import Contract


@dataclass(frozen=True, slots=True)
class Plan:
    """Tables built and proved, canonical privacy section C and its SHA-256 (`c_digest`), ids for the noise."""

    canonical: bytes
    c_digest: bytes

    @classmethod
    def of(cls, contract: Contract) -> Plan:
        """Raises ContractError where a promise cannot be kept (a table too weak, a grid that cuts an epoch)."""
        raise NotImplementedError
