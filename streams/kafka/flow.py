"""Whether a consumer stands although there is something to read. Pure.

Answers that name no broker, as one gives them that its controller has fenced, can kill a librdkafka client for good
(its issue 5301; 2.16 still): it forgets every broker, the bootstrap ones too, asks nobody any more, and no error says
so. A new client is the only remedy: neither another assignment nor `metadata.recovery.*` helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

Partition = TypeVar("Partition")


class Flow(Generic[Partition]):
    """Looks at `(position, last stable offset)`; a partition is stranded after `patience` looks that saw its position
    where it was, and below that offset.

    Looks, not seconds: time in which nobody could look proves nothing. The position must count markers too, as the
    offset of `_PARTITION_EOF` does: the last record does not, and a log that ends in a marker is no reason.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._known: dict[Partition, tuple[int, int]] = {}  # position, looks since it was first seen there

    def look(self, found: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        """Those that are stranded. What is not in `found` is forgotten: it is not fetched now."""
        known, self._known = self._known, {}
        for partition, (position, stable) in found.items():
            before, looks = known.get(partition, (None, 0))
            if position < stable:
                self._known[partition] = position, looks + 1 if before == position else 0
        return [partition for partition, (_, looks) in self._known.items() if looks >= self._patience]
