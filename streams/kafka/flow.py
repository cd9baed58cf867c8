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
    offset of `_PARTITION_EOF` does: the last record does not, and a log that ends in a marker is no reason. Each alarm
    doubles the patience until something moves: a fetch that takes long must come to its end at last.
    """

    def __init__(self, patience: int) -> None:
        self._patience = self._enough = patience
        self._of: object = None
        self._known: dict[Partition, tuple[int, int]] = {}  # position, looks since it was first seen there

    def look(self, found: Mapping[Partition, tuple[int, int]], of: object = None) -> list[Partition]:
        """Those that are stranded. `of`: whose positions they are; another one begins anew."""
        known = self._known if of == self._of else {}
        self._of, self._known = of, {}
        for partition, (position, stable) in found.items():
            before, looks = known.get(partition, (position, -1))
            if before != position:
                looks, self._enough = -1, self._patience
            if position < stable:
                self._known[partition] = position, looks + 1
        stranded = [each for each, (_, looks) in self._known.items() if looks >= self._enough]
        if stranded:
            self._known = {each: (position, -1) for each, (position, _) in self._known.items()}
            self._enough *= 2
        return stranded
