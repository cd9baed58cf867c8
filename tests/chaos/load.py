"""What goes in: rows at a steady rate into the file that `sluice publish` follows, and poison straight into raw."""

from __future__ import annotations

import os
import time
from pathlib import Path

from confluent_kafka import Producer

from streams.kafka.clients import Connection, logger
from tests.chaos.events import HEADER, Script

POISON_A_SECOND = 10.0


class Load:
    """Writes whole lines. `count` events are in the file by now."""

    def __init__(self, script: Script, file: Path, rate: float) -> None:
        self.script, self.rate, self.count = script, rate, 0
        self._file = file.open("ab", buffering=0)
        self._file.write(HEADER)
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.monotonic()

    def look(self) -> None:
        """Writes what is due by now."""
        due = min(int(self.lasted * self.rate), self.script.limit)
        if due > self.count:
            lines = [self.script.event(number).line() for number in range(self.count, due)]
            self._file.write(b"".join(lines))
            self.count = due

    @property
    def lasted(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self._began

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


class Poison:
    """Records that are no events, numbered from 1, by an idempotent producer that outlives every fault."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self._producer = Producer(
            connection.settings(enable_idempotence=True, message_timeout_ms=0, linger_ms=5), logger=logger()
        )
        self._topic, self._partitions = topic, partitions
        self._began = time.monotonic()
        self.sent = 0

    def look(self) -> None:
        due = int((time.monotonic() - self._began) * POISON_A_SECOND)
        while self.sent < due:
            self.sent += 1
            self._producer.produce(
                self._topic, b"poison-%d" % self.sent, b"poison", self.sent % self._partitions
            )
        self._producer.poll(0)

    def close(self) -> int:
        """How many are still not on the broker."""
        return int(self._producer.flush(60))
