"""Epochs that are over: their keys are destroyed here, a minute after the last of their partitions has left them.

Only for keys: the ledger's rows of such an epoch go with the next batch of their partition (`hop.py`). It is all
the same in which order that happens, or whether a crash lies between: without a key an epoch's events are
denied before its ledger is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from streams.privacy.clocks import Clocks
from streams.privacy.keys import KeyChain
from streams.privacy.keystore import UnwrittenError

log = structlog.get_logger("sluice.keys")
EVERY_MS = 60_000


class Closing:
    """Of one worker. `now_ms` is wall time."""

    def __init__(
        self, clocks: Clocks, keys: KeyChain, now_ms: Callable[[], int], every_ms: int = EVERY_MS
    ) -> None:
        self._clocks, self._keys, self._now_ms, self._every_ms = clocks, keys, now_ms, every_ms
        self._clock_ms: dict[int, int] = {}
        self._due_ms = now_ms()

    def committed(self, partition: int, clock_ms: int) -> None:
        """The partition is committed up to this clock. From any thread."""
        self._clock_ms[partition] = clock_ms

    def look(self, owned: Iterable[int]) -> None:
        """Now and then, on the thread that shares: a key chain is not thread safe. `owned`: the partitions that
        are restored now; another worker speaks for the others."""
        now_ms = self._now_ms()
        if now_ms < self._due_ms:
            return
        self._due_ms = now_ms + self._every_ms
        known = dict(self._clock_ms)
        clocks = {partition: known[partition] for partition in owned if partition in known}
        try:
            oldest = self._clocks.report(clocks, now_ms)
        except UnwrittenError as error:  # a full disk: keys live longer than they must, and sharing goes on
            log.warning(error.message, remedy=error.remedy)
            return
        if oldest is not None and oldest > self._keys.oldest:
            self._keys.destroy_before(oldest)
            log.info(
                "keys of closed epochs destroyed", population=self._keys.population, oldest=self._keys.oldest
            )
