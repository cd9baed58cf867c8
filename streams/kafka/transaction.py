"""Consume, produce, commit: each batch of records is one Kafka transaction. Faust-free; share agent and
trainer use it.

Use, from any one thread:

    def restore(sources, changelog): ...    # build the state of these partitions anew from (key, value) pairs

    with TransactionalPipe(connection, group="share.x", topics=["x.raw.v1"], transactional_id="share.x.0",
                           changelog=lambda source: Source("x.ledger.v1", source.partition),
                           restore=restore) as pipe:
        while not stopping:
            records = pipe.next(timeout_seconds=0.5)
            if records is None:
                continue
            result = Result(outputs=..., changes=..., apply=lambda: state.apply(changes))
            # -> Future[bool]; False: dropped, will be handed out again
            pipe.commit([(records, result)])

Guarantees, for readers with `isolation.level=read_committed`: each source record is part of exactly one
committed transaction, together with the outputs, changelog records and source offsets of that transaction;
`restore` sees exactly the changes of committed transactions. Where the handler's bytes depend on the log
alone, uncommitted readers too see only one payload for each record. Not guaranteed: that a record is
processed only once (what was not committed is processed again), nor any order between partitions.

A consumer thread fetches (`reader.py`), the caller computes, a producer thread commits (`writer.py`), a
restore thread reads changelogs (`restore.py`). The caller must have the result of a partition's records
committed (`Future.result()`) before it computes the next that depend on the changed state; decoding ahead is
fine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import structlog

from schemas.errors import FatalError, RetriableError
from streams.kafka.clients import Connection
from streams.kafka.reader import Reader
from streams.kafka.records import NOTHING, Output, Records, Result, Source
from streams.kafka.restore import Restorer
from streams.kafka.session import Session, Tuning
from streams.kafka.stable import Lookout
from streams.kafka.watchdog import Watchdog
from streams.kafka.writer import Work, Writer

__all__ = ["NOTHING", "Output", "Records", "Result", "Source", "TransactionalPipe", "Tuning"]

log = structlog.get_logger("sluice.pipe")

DEFAULTS = Tuning()
Restore = Callable[[Sequence[Source], Iterable[tuple[bytes, bytes | None]]], None]
Revoked = Callable[[Sequence[Source]], None]


class TransactionalPipe:
    """One worker of a consumer group that turns records into transactions.

    `group`: consumer group. `topics`: sources, all read with `read_committed`. `transactional_id`: stable per
    worker slot (see `slots.py`), used as `group.instance.id` too. `changelog(source)` names the changelog
    partition of a source partition, several sources may share one; with None there is no state, and none of
    the checks for tears.

    `restore(sources, changelog)` is called on the restore thread after each assignment and each reset, once
    for each changelog partition with all sources that belong to it, before the first of their records is
    handed out. It must read `changelog` to its end and begin from an empty state; records handed out before
    it belong to an older epoch, whose commits are dropped. `revoked(sources)` (consumer thread) says that the
    state is no longer needed; neither may raise for data, an exception that they raise stops the pipe.

    Raises at `start()`: WallError where the broker refuses this principal, RetriableError where it does not
    answer.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        group: str,
        topics: Sequence[str],
        transactional_id: str,
        changelog: Callable[[Source], Source] | None = None,
        restore: Restore | None = None,
        revoked: Revoked | None = None,
        tuning: Tuning = DEFAULTS,
    ) -> None:
        self.session = Session()
        self._watchdog = Watchdog()
        self._writer = Writer(connection, transactional_id, changelog, self.session, self._watchdog, tuning)
        self._restorer = Restorer(connection, group, changelog, restore, self.session, tuning)
        self._reader = Reader(connection, group, topics, transactional_id, revoked, self.session, tuning)
        self._lookout = Lookout(connection, lambda: self._reader.group, changelog, self.session, tuning)
        self._lookout.halt, self._lookout.reset = self._reader.halt, self._reader.reset
        self._lookout.fetched, self._lookout.renew = self._reader.fetched, self._reader.renew
        self._restorer.ready = self._reader.ready
        self._reader.assigned = self._restorer.request
        self._writer.reset = self._restorer.reset = self._reader.reset
        self._started = threading.Event()

    def start(self) -> None:
        """Fences an earlier process of the same slot, then joins the group. Returns once that is done."""
        self._watchdog.start()
        self._writer.start()
        try:
            self._restorer.cluster = self._writer.cluster = self._writer.opened()
        except BaseException:
            self.stop()
            raise
        self._restorer.start()
        self._reader.start()
        self._lookout.start()

    def next(self, timeout_seconds: float) -> Records | None:
        """The next records of some partition in log order, or None after the timeout or once stopping.

        Raises what stopped the pipe: TornError only when no partition is left that can go on, WallError,
        other FatalErrors, or an unexpected exception of a thread.
        """
        if self.session.error is not None:
            raise self.session.error
        return self._reader.next(timeout_seconds)

    def commit(self, work: Sequence[tuple[Records, Result]]) -> Future[bool]:
        """Commits these records with their results in one transaction. Never blocks.

        The records of one partition must follow each other and what was committed last; use `NOTHING` where
        several records have one result. The future becomes True after the commit and `apply`; False when the
        records belong to an older epoch or the transaction failed: forget them, they are handed out again
        after a `restore`. Work that waits is committed together.
        """
        for records, result in work:
            self.session.outputs.setdefault(records.source, set()).update(
                Source(output.topic, output.partition) for output in result.outputs
            )
        return self._writer.put(Work(tuple(work)))

    def fail(self, records: Records, error: BaseException) -> None:
        """The handler could not process these records. They come back in smaller pieces; a single record that
        fails again comes back with its offset in `doomed`. A FatalError or KeyboardInterrupt stops the pipe
        instead, and so does what no record is guilty of: files, threads, memory."""
        if isinstance(error, FatalError) or not isinstance(error, Exception):
            self.session.fail(error)
            return
        if records.epoch != self.session.epoch:
            return
        alone = isinstance(error, MemoryError) and len(records) <= 1  # more records do with less memory
        if alone or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
            self.session.fail(
                RetriableError(
                    f"The machine failed the handler of {records.source} ({type(error).__name__}, "
                    f"{getattr(error, 'strerror', None) or 'no details'}).",
                    "Look at disk, memory, open files and the rights of SLUICE_HOME; start the worker again.",
                )
            )
            return
        log.error("records made their handler fail", source=str(records), error=type(error).__name__)
        self.session.suspect(records)
        self._reader.reset("handler failed")

    @property
    def full(self) -> bool:
        """Whether waiting would not make the next batch larger."""
        return self._reader.full

    def restart(self, why: str) -> None:
        """Forgets everything that is not committed, restores, and hands it out again."""
        self._reader.reset(why)

    @property
    def stopped(self) -> dict[Source, Exception]:
        """Partitions that need an operator's decision (TornError), with the reason: torn, or held by a transaction
        that nobody ends. The latter go on by themselves when it ends after all."""
        return {**self.session.stopped, **self.session.standing}

    @property
    def assigned(self) -> dict[Source, int]:
        """Restored partitions and the position each is committed up to."""
        return dict(self.session.positions)

    def stop(self) -> None:
        """Commits what was handed to `commit`, then leaves. Safe to call twice."""
        self.session.stopping.set()
        for thread in (self._writer, self._restorer, self._reader, self._lookout):
            if thread.is_alive():
                thread.join()
        self._watchdog.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
