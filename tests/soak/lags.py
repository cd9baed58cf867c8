"""On a thread of its own, once a second: what `sluice lag` says of the groups, and a little work for the registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaException

from schemas.errors import SluiceError
from sluice.ops.lag import Lag
from streams.kafka.clients import Connection, registry

EVERY_SECONDS = 1.0
QUESTIONS = 5  # to the registry, a second


class Lags(threading.Thread):
    """`seconds[group]`: (seconds since the start, age of the oldest record that waits). `problems`: looks without an
    answer, by the name of their error."""

    def __init__(self, ops: Connection, asks: Connection, groups: Sequence[str], subject: str) -> None:
        super().__init__(name="lags", daemon=True)
        self.seconds: dict[str, list[tuple[float, float]]] = {each: [] for each in groups}
        self.problems: list[str] = []
        self._lag, self._asks, self._subject = Lag(ops), asks, subject
        self._groups = list(groups)
        self._began = time.monotonic()
        self._over = threading.Event()

    def run(self) -> None:
        with registry(self._asks) as client:
            while not self._over.wait(EVERY_SECONDS):
                try:
                    found = self._lag.look(time.time_ns() // 1_000_000, self._groups)
                    for _ in range(QUESTIONS):
                        client.get_versions(self._subject)
                except (SluiceError, KafkaException) as problem:
                    self.problems.append(type(problem).__name__)
                    continue
                at = time.monotonic() - self._began
                for each in found:
                    if each.seconds is not None:
                        self.seconds[each.group].append((at, each.seconds))

    def stop(self) -> None:
        self._over.set()
        self.join(30)
