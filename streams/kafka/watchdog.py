"""Ends the process when a call into librdkafka overruns its deadline.

`send_offsets_to_transaction` and a producer's destructor can block for ever (librdkafka #5456, #5511), and a
blocked thread cannot be stopped from inside. The slot's restart recovers: its `init_transactions` aborts what
was open.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

GRACE_SECONDS = 15.0
EXIT_CODE = 75  # EX_TEMPFAIL: start me again

log = structlog.get_logger("sluice.watchdog")


def _end_process(call: str) -> None:
    log.critical(
        "a Kafka call overran its deadline; this process ends so that its slot can be restarted", call=call
    )
    os._exit(EXIT_CODE)


class Watchdog:
    """Watches one thread's calls. `expired(call)` runs on the watching thread; the default one ends."""

    def __init__(
        self, grace_seconds: float = GRACE_SECONDS, expired: Callable[[str], None] = _end_process
    ) -> None:
        self._grace = grace_seconds
        self._expired = expired
        self._current: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def limit(self, call: str, seconds: float, grace_seconds: float | None = None) -> Iterator[None]:
        """The body should take `seconds`; after these and the grace, the watchdog's own by default, it is given up."""
        grace = self._grace if grace_seconds is None else grace_seconds
        outer, self._current = self._current, (call, time.monotonic() + seconds + grace)
        try:
            yield
        finally:
            self._current = outer

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._grace / 2)):
            current = self._current
            if current is not None and time.monotonic() > current[1]:
                self._expired(current[0])
                return
