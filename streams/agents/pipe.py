"""Between the Faust agents and Kafka: one prepared batch per poll goes to a channel, each result into a
transaction.

How it avoids what Faust's own consumer does (docs/architecture.md): a batch carries a future, so
nothing is acked unless its result is committed; an agent that raises or hangs makes the batch come back, in
smaller pieces until the record at fault is alone; offsets are sent inside the transaction only; no table, no
topic of Faust's, no web server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import structlog
from mode import Service

from schemas.errors import SluiceError
from streams.kafka.records import Records, Result, Source
from streams.kafka.transaction import TransactionalPipe

log = structlog.get_logger("sluice.pipe")

Prepared = TypeVar("Prepared")
HANDLER_SECONDS = 60.0
AHEAD = 42_000  # records, or kilobytes, that may be computed but not committed, where whole batches wait


class Batch(Generic[Prepared]):
    """What an agent gets: `content`, prepared from the records of one partition, and one call to hand the
    result back.
    """

    def __init__(self, records: Records, content: Prepared, answer: asyncio.Future[Result]) -> None:
        self.records = records
        self.content = content
        self._answer = answer

    def finish(self, result: Result) -> None:
        """To be committed. Does nothing when the batch has timed out by now."""
        if not self._answer.done():
            self._answer.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give it back. A FatalError stops the worker."""
        if not self._answer.done():
            self._answer.set_exception(error)


class _Open(NamedTuple):
    """A batch that is not committed yet."""

    size: int
    answer: asyncio.Future[Result]
    settled: asyncio.Task[None]


class Pipe(Service, Generic[Prepared]):
    """Runs a TransactionalPipe for an app.

    `prepare(records)` makes a batch's content on a thread of its own, while earlier ones are computed and
    committed; it must not need state. The next batch of a partition is asked for when the one before is
    committed: so it holds all that came meanwhile, and waits for nothing but its own transaction. Where
    whole batches wait, they are computed ahead. An agent takes its state over each batch at once, ahead of
    the commit: whatever keeps a batch from being committed begins a new epoch, in which the work that was built
    on it is dropped, and a *new* state is restored from the changelog.
    """

    def __init__(
        self,
        kafka: TransactionalPipe,
        prepare: Callable[[Records], Prepared],
        deliver: Callable[[Batch[Prepared]], Any],
        **more: Any,
    ) -> None:
        self.kafka = kafka
        self.committed = asyncio.Event()
        self._prepare = prepare
        self._deliver = deliver
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pipe")
        self._lines: dict[Source, deque[_Open]] = {}
        self._ended: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        super().__init__(**more)

    async def ended(self) -> None:
        """Returns when the pipe has stopped by itself; raises what stopped it."""
        await asyncio.shield(self._ended)

    async def on_start(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self.kafka.start)

    async def on_stop(self) -> None:
        """What is being computed is committed; then the threads are joined."""
        loop = asyncio.get_running_loop()
        unsettled = [each.settled for line in self._lines.values() for each in line]
        if unsettled:
            await asyncio.wait(unsettled, timeout=HANDLER_SECONDS)
        await loop.run_in_executor(None, self.kafka.stop)
        self._threads.shutdown(wait=False)
        if not self._ended.done():
            self._ended.set_result(None)

    @Service.task
    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self.should_stop:
                await self._room()
                found = await loop.run_in_executor(self._threads, self._next)
                if found is None:
                    continue
                records, content = found
                if isinstance(content, Exception):
                    self.kafka.fail(records, content)
                    continue
                line = self._lines.setdefault(records.source, deque())
                if line:
                    await asyncio.wait([line[-1].answer])
                if self.should_stop or records.epoch != self.kafka.session.epoch:
                    continue
                answer: asyncio.Future[Result] = loop.create_future()
                size = max(len(records), records.nbytes >> 10)
                line.append(_Open(size, answer, loop.create_task(self._settle(records, answer))))
                await self._deliver(Batch(records, content, answer))
        except BaseException as error:
            if not self._ended.done():
                self._ended.set_exception(error)
            if not isinstance(error, (SluiceError, asyncio.CancelledError)):
                raise

    async def _room(self) -> None:
        """Until no partition has a batch that is not committed; or not, where waiting gathers nothing."""
        while True:
            for line in self._lines.values():
                while line and line[0].settled.done():
                    line.popleft()
            open_ = [each for line in self._lines.values() for each in line]
            most = min(AHEAD, 3 * (self.kafka.session.fit.most or AHEAD))
            if not open_ or (self.kafka.full and sum(each.size for each in open_) < most):
                return
            await asyncio.wait([each.settled for each in open_], return_when=asyncio.FIRST_COMPLETED)

    def _next(self) -> tuple[Records, Prepared | Exception] | None:
        records = self.kafka.next(0.2)
        if records is None:
            return None
        try:
            return records, self._prepare(records)
        except Exception as error:
            return records, error

    async def _settle(self, records: Records, answer: asyncio.Future[Result]) -> None:
        try:
            result = await asyncio.wait_for(answer, HANDLER_SECONDS)
        except Exception as error:
            self.kafka.fail(records, error)
            return
        if await asyncio.wrap_future(self.kafka.commit([(records, result)])):
            self.committed.set()
