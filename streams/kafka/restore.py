"""The restore thread: committed offsets, then the changelog up to its end, then consuming may begin.

The order matters. `committed()` of a `read_committed` consumer waits for pending offsets; only after it the
high watermark of the changelog is known to cover the transactions those offsets belong to. Read the other way
round, state is lost.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import SluiceError, TornError, WallError
from streams.kafka.clients import Connection, logger
from streams.kafka.reader import FORBIDDEN
from streams.kafka.records import Source
from streams.kafka.session import Session, Tuning
from streams.kafka.state import Position, Positions

log = structlog.get_logger("sluice.restore")
CALL_SECONDS = 5.0
REPAIR = "Stop the group's workers, then `sluice doctor CONTRACT`: it explains, and --repair puts it right."


class _OutdatedError(Exception):
    """Another epoch has begun, or the worker stops."""


class _UnansweredError(Exception):
    """The broker does not tell these clients what it tells others, perhaps: once more, with new ones."""


class Restorer(threading.Thread):
    """Restores the partitions of the newest request; those that are torn stay stopped."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        changelog: Callable[[Source], Source] | None,
        restore: Callable[[Sequence[Source], Iterable[tuple[bytes, bytes | None]]], None] | None,
        session: Session,
        tuning: Tuning,
    ) -> None:
        super().__init__(name="restore", daemon=True)
        self.ready: Callable[[int, Source, int], None]
        self.reset: Callable[[str], None]
        self.cluster = ""
        self._reading = connection.settings(
            group_id=group,
            client_id="restore",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="error",
            enable_partition_eof=True,
            fetch_wait_max_ms=50,
        )
        self._probing = connection.settings(
            group_id=group, client_id="probe", isolation_level="read_uncommitted"
        )
        self._changelog = changelog
        self._restore = restore
        self._session = session
        self._patience = 2 * tuning.transaction_timeout_ms / 1000
        self._requests: queue.Queue[tuple[int, list[Source]]] = queue.Queue()

    def request(self, epoch: int, sources: list[Source]) -> None:
        self._requests.put((epoch, sources))

    def run(self) -> None:
        while not self._session.stopping.is_set():
            try:
                epoch, sources = self._requests.get(timeout=0.2)
            except queue.Empty:
                continue
            if epoch != self._session.epoch or not sources:
                continue
            with self._session.quiet:  # the last transaction is over and its changes are applied
                pass
            try:
                self._all(epoch, sources)
            except _OutdatedError:
                continue
            except _UnansweredError:  # some of them may run already: these too begin anew
                self.reset("a restore got no answer")
            except BaseException as error:
                self._session.fail(error)

    def _all(self, epoch: int, sources: list[Source]) -> None:
        began = time.monotonic()
        reading, probing = (Consumer(each, logger=logger()) for each in (self._reading, self._probing))
        try:
            committed = self._committed(reading, sources, epoch)
            shared: dict[Source | None, list[Source]] = {}
            for source in sources:
                shared.setdefault(self._changelog(source) if self._changelog else None, []).append(source)
            for each in set(self._session.stopped).difference(sources):  # another worker's by now
                del self._session.stopped[each]
            stuck = {target for target in shared if target and self._open(reading, probing, target, epoch)}
            for target, group in sorted(
                shared.items(), key=lambda item: item[0] in stuck
            ):  # others do not wait
                try:
                    positions = self._read(reading, probing, target, group, epoch) if target else None
                    starts = {
                        source: self._start(probing, source, committed[source], positions, epoch)
                        for source in group
                    }
                except TornError as error:
                    if (
                        error not in self._session.standing.values()
                    ):  # that is said, and lifted, by the lookout
                        self._session.stopped.update(dict.fromkeys(group, error))
                        log.critical(
                            error.message, remedy=error.remedy, partitions=[list(source) for source in group]
                        )
                    continue
                for source, start in starts.items():
                    self._session.stopped.pop(source, None)
                    if self._session.ready(epoch, source, start):
                        self.ready(epoch, source, start)
            if (error_of_all := self._session.halted(sources)) is not None:
                raise error_of_all
            log.info(
                "restored", partitions=len(sources), seconds=round(time.monotonic() - began, 3), epoch=epoch
            )
        finally:
            reading.close()
            probing.close()

    def _check(self, epoch: int) -> None:
        if epoch != self._session.epoch or self._session.stopping.is_set():
            raise _OutdatedError

    def _committed(self, reading: Consumer, sources: list[Source], epoch: int) -> dict[Source, int]:
        """The group's offsets, -1001 for none. Pending ones (an open transaction) are waited for."""
        began = time.monotonic()
        while True:
            self._check(epoch)
            if time.monotonic() - began > self._patience:
                log.warning(
                    "the group's committed offsets cannot be read, or a transaction on them stays open",
                    remedy="Look at `sluice status`; `sluice doctor CONTRACT` names such a transaction.",
                )
                raise _UnansweredError
            try:
                found = reading.committed(
                    [TopicPartition(*source) for source in sources], timeout=CALL_SECONDS
                )
            except KafkaException as problem:
                _give_up(problem)
                continue
            if all(each.error is None for each in found):
                return {Source(each.topic, each.partition): each.offset for each in found}
            time.sleep(0.05)

    def _watermarks(self, probing: Consumer, source: Source, epoch: int) -> tuple[int, int]:
        """First offset kept and end of the log, open transactions included."""
        began = time.monotonic()
        while True:
            self._check(epoch)
            if time.monotonic() - began > self._patience:
                log.warning(
                    f"the ends of {source} cannot be read; the clients are built anew",
                    remedy="Look at `sluice status`.",
                )
                raise _UnansweredError
            try:
                found = probing.get_watermark_offsets(
                    TopicPartition(*source), timeout=CALL_SECONDS, cached=False
                )
                if found is not None:
                    return int(found[0]), int(found[1])
            except KafkaException as problem:
                _give_up(problem)

    def _open(self, reading: Consumer, probing: Consumer, target: Source, epoch: int) -> bool:
        """Whether a transaction is open on it right now."""
        return self._watermarks(reading, target, epoch)[1] < self._watermarks(probing, target, epoch)[1]

    def _read(
        self, reading: Consumer, probing: Consumer, target: Source, group: list[Source], epoch: int
    ) -> dict[Source, Position]:
        """Hands the changelog to `restore` and returns the positions found in it. Raises what holds it."""
        low, high = self._watermarks(probing, target, epoch)
        positions = Positions()
        assert self._restore is not None
        self._restore(group, positions.strip(self._records(reading, target, low, high, epoch, group[0])))
        return positions.found

    def _records(
        self, reading: Consumer, target: Source, low: int, high: int, epoch: int, first: Source
    ) -> Iterator[tuple[bytes, bytes | None]]:
        if high <= low:
            return
        reading.assign([TopicPartition(*target, low)])
        at, progress = low, time.monotonic()
        while at < high:
            self._check(epoch)
            if (held := self._session.standing.get(first)) is not None:
                raise held
            for message in reading.consume(10_000, 0.02):
                error = message.error()
                if error is None:
                    at, progress = int(message.offset() or 0) + 1, time.monotonic()
                    yield message.key() or b"", message.value()
                elif error.code() == KafkaError._PARTITION_EOF:  # last stable, not always the end
                    if int(message.offset() or 0) > at:
                        at, progress = int(message.offset() or 0), time.monotonic()
                else:
                    _give_up(KafkaException(error))
            if time.monotonic() - progress > self._patience:
                stable = self._watermarks(reading, target, epoch)[1]
                if at < stable:
                    log.warning(
                        f"{target} is not fetched beyond {at}, though {stable} is stable; the clients are built anew",
                        remedy="Look at `sluice status`.",
                    )
                    raise _UnansweredError
                raise TornError(
                    f"{target} holds a transaction that nobody ends: {at} of {high} stays stable.",
                    REPAIR,
                )
        reading.assign([])

    def _start(
        self,
        probing: Consumer,
        source: Source,
        committed: int,
        positions: dict[Source, Position] | None,
        epoch: int,
    ) -> int:
        """Where to begin: what is committed, which the changelog must confirm."""
        low, high = self._watermarks(probing, source, epoch)
        if positions is not None:
            found = positions.get(source)
            known = None if found is None else found.next
            agreed = committed if committed >= 0 else None
            if found is not None and found.cluster != self.cluster:
                raise TornError(
                    f"The changelog of {source} was written in another Kafka cluster.",
                    "Offsets of two clusters cannot be compared: give this cluster its own changelog topic.",
                )
            if known != agreed:
                raise TornError(
                    f"{source} is torn: the group is committed at {agreed}, its changelog at {known}.",
                    f"Nothing is lost or doubled yet. {REPAIR}",
                )
        start: int = low if committed < 0 else committed
        if start < low:
            log.error(
                "records were deleted by retention before they were read", source=source, count=low - start
            )
        if start > high:
            raise TornError(
                f"{source} ends at {high}, before the committed position {start}.",
                "The topic was made again or truncated: its state is about records that are gone.",
            )
        return max(start, low)


def _give_up(problem: KafkaException) -> None:
    """Raises for what waiting does not heal."""
    error = problem.args[0]
    if error.code() in FORBIDDEN:
        raise WallError(
            f"The broker refused: {error.str()}",
            "Open the contract or task with the admin's principal first.",
        ) from None
    if error.fatal():
        raise SluiceError(f"A Kafka client failed: {error.str()}", "Start the worker again.") from None
    time.sleep(0.05)
