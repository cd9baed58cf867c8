"""What a running command says while its broker is away: once in ten seconds, why, and what to do.

librdkafka tells each lost connection of each client, forty times a second, in its own words. The command goes on
waiting in any case: what is not committed is sent or read again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

EVERY_SECONDS = 10.0
REFUSED = re.compile(r"Connect to \S+ failed|Failed to resolve")


class Away:
    """A processor for structlog. `now` in seconds, monotonic."""

    def __init__(self, home: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._home, self._now = home, now
        self._next = -EVERY_SECONDS

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Passes on what is not about a broker that is away."""
        said, error = event.get("event"), event.get("error")
        if said == "librdkafka":
            lost = REFUSED.search(str(event.get("message"))) is not None
        else:
            lost = said in ("producer", "consumer") and error in ("_ALL_BROKERS_DOWN", "_TRANSPORT")
        if not lost:
            return event
        from structlog import DropEvent

        now = self._now()
        if now < self._next or error == "_TRANSPORT":  # of one connection: it may also close for being idle
            raise DropEvent
        self._next = now + EVERY_SECONDS
        return {
            **{name: value for name, value in event.items() if name in ("level", "timestamp")},
            "event": "no broker answers; waiting, and nothing is lost.",
            "remedy": _why(self._home) or "Look at `sluice status`.",
        }


def _why(home: Path) -> str:
    from sluice.stack import disk

    return disk.why_silent(home)
