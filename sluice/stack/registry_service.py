"""The registry as one object: the store, the log, and the order in which a change passes between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from confluent_kafka import KafkaException

from schemas.errors import SluiceError
from sluice.stack import registry_replies as reply
from sluice.stack.registry_changes import Change
from sluice.stack.registry_log import Batch
from sluice.stack.registry_store import Record, Store

READ_BACK_SECONDS = 10.0


class Log(Protocol):
    """What the service needs of a log: registry_log.Log on Kafka, registry_memory.MemoryLog."""

    def open(self, timeout_seconds: float) -> str: ...

    def follow(self, take: Callable[[Batch], None]) -> None: ...

    def mark(self) -> int: ...

    def append(self, records: tuple[Record, ...]) -> int: ...

    def close(self) -> None: ...


class Registry:
    """All state lives on one event loop; only the log's own two threads do I/O. Reads need no lock."""

    def __init__(self, log: Log) -> None:
        self.store = Store()
        self.ready = False
        self.cluster_id = ""
        self._log = log
        self._lock = asyncio.Lock()
        self._moved = asyncio.Event()
        self._unsure = False  # an append failed: it may be in the log or not

    async def start(self, timeout_seconds: float, failed: Callable[[SluiceError], None]) -> None:
        """Read the log to its end; `ready` then. `failed` is called once if the log is lost later on."""
        loop = asyncio.get_running_loop()
        self.cluster_id = await asyncio.to_thread(self._log.open, timeout_seconds)

        def hand_over(batch: Batch) -> None:
            loop.call_soon_threadsafe(self._take, batch)

        def follow() -> None:
            try:
                self._log.follow(hand_over)
            except SluiceError as problem:
                loop.call_soon_threadsafe(failed, problem)
            except RuntimeError:
                pass  # the loop closed under us: the process ends

        threading.Thread(target=follow, name="registry-log", daemon=True).start()
        await self._catch_up(timeout_seconds)
        self.ready = True

    def stop(self) -> None:
        self.ready = False
        self._log.close()

    async def change(self, decide: Callable[[Store], Change]) -> object:
        """Decide on the newest state, append, wait until the log gives it back, answer. One at a time.

        1. what an earlier failed append left behind is known   2. decide   3. append   4. applied   5. answer
        Raises Refused: what `decide` raises, 50001 (outcome unknown), 50002.
        """
        async with self._lock:
            if self._unsure:
                await self._mark()
            change = decide(self.store)
            if change.records:
                self._unsure = True
                try:
                    offset = await asyncio.to_thread(self._log.append, change.records)
                except KafkaException:
                    raise reply.store_error() from None
                await self._applied(offset)
                self._unsure = False
            return change.answer

    async def _mark(self) -> None:
        try:
            offset = await asyncio.to_thread(self._log.mark)
        except KafkaException:
            raise reply.store_error() from None
        await self._applied(offset)
        self._unsure = False

    async def _catch_up(self, timeout_seconds: float) -> None:
        """Like `_mark`, but patient: the partition may have no leader yet, and the log may be long."""
        end = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            try:
                await self._mark()
                return
            except reply.Refused:
                if asyncio.get_running_loop().time() > end:
                    raise

    async def _applied(self, offset: int) -> None:
        try:
            async with asyncio.timeout(READ_BACK_SECONDS):
                while self.store.applied < offset:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise reply.store_timeout() from None

    def _take(self, batch: Batch) -> None:
        for key, value, offset in batch:
            self.store.apply(key, value, offset)
        self._moved.set()
