"""Looks at every partition of a contract as admin, and repairs what can be repaired. The rules: doctor_rules.py.

librdkafka has no call that aborts somebody else's transaction. But whoever opens a producer with the same
transactional id fences the one before, and the coordinator then aborts what that one left open: this needs the
id alone, which Kafka's own record of transactions tells (doctor_log.py). Not seen that way: a transaction that
its coordinator has forgotten, which only Kafka's WriteTxnMarkers ends; it is named.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import ConfigurationError, RetriableError, WallError
from sluice.ops import doctor_log, doctor_rules
from sluice.ops.doctor_log import Transaction
from sluice.ops.doctor_rules import Ends, Place, Problem, Span, Where
from streams.kafka.clients import Connection, logger
from streams.kafka.reader import FORBIDDEN
from streams.kafka.records import Source
from streams.kafka.session import Tuning
from streams.kafka.state import Positions

TIMEOUT_SECONDS = 10.0
OLDER_SECONDS = 2 * Tuning().transaction_timeout_ms / 1000  # the broker has ended any of ours by then
STILL_SECONDS = 3.0  # in which a transaction that goes on moves
IDLE_SECONDS = 10.0  # a worker that was stopped is a member until its session ends, 3 s later
_RAW = re.compile(r"(.+)\.raw\.v([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Report:
    """One contract: its share group, and what is wrong."""

    place: Place
    state: str
    members: int
    partitions: int
    problems: tuple[Problem, ...]


class Doctor:
    """Of one cluster, as admin. Every call may raise RetriableError (no answer) or WallError (refused)."""

    def __init__(self, connection: Connection, older_seconds: float = OLDER_SECONDS) -> None:
        """`older_seconds`: a transaction that began longer ago hangs."""
        self._connection = connection
        self._older_ms = int(older_seconds * 1000)
        self._admin = AdminClient({**connection.settings(client_id="doctor"), "log_level": 0})

    def look(self, now_ms: int, contract: str | None = None) -> list[Report]:
        """All contracts that have a raw topic, or the one of this name. Raises ConfigurationError for another."""
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_SECONDS)
            sizes = {name: len(topic.partitions) for name, topic in known.topics.items()}
            found = [Place.of(m[1], int(m[2])) for m in map(_RAW.fullmatch, sorted(sizes)) if m]
            places = [place for place in found if contract in (None, place.contract)]
            if contract is not None and not places:
                names = ", ".join(sorted({place.contract for place in found})) or "none"
                raise ConfigurationError(
                    f"No contract {contract!r} is open on this broker.", f"Open here: {names}."
                )
            return [self._report(place, sizes, str(known.cluster_id), now_ms) for place in places]
        except KafkaException as problem:
            raise self._explained(problem) from None

    def repair(self, report: Report) -> list[str]:
        """Does what the problems' `repair` says, and says what was done. What stands behind a transaction shows at
        the next look only. Raises RetriableError while the group has a member, before anything is changed.
        """
        done = []
        try:
            self._idle(report.place)
            for problem in report.problems:
                if problem.identity is not None:
                    self._fence(problem.identity)
                    done.append(f"aborted the transaction of {problem.identity}")
                elif problem.offset is not None:
                    self._set(report.place.group, problem.where[0], problem.offset)
                    done.append(
                        f"set {report.place.group} to {problem.offset:,} in {doctor_rules.named(problem.where)}"
                    )
        except KafkaException as problem_:
            raise self._explained(problem_) from None
        return done

    def _report(self, place: Place, sizes: Mapping[str, int], cluster: str, now_ms: int) -> Report:
        wanted = {(topic, each) for topic in place.topics for each in range(sizes.get(topic, 0))}
        raw = [where for where in sorted(wanted) if where[0] == place.raw]
        group = self._admin.describe_consumer_groups([place.group], request_timeout=TIMEOUT_SECONDS)
        described = group[place.group].result()
        committed, unstable = self._committed(place.group, raw)
        ends = self._ends(wanted)
        problems: list[Problem] = []
        if held := doctor_rules.held_back(ends, unstable):
            transactions = self._transactions(sizes)
            problems += doctor_rules.hanging(place, ends, unstable, transactions, now_ms, self._older_ms)
            explained = {where for each in transactions for where in each.partitions}
            if odd := [where for where in held if where in ends and where not in explained]:
                time.sleep(STILL_SECONDS)
                again = self._ends(odd)
                odd = [w for w in odd if w in again and ends[w].stable == again[w].stable < again[w].high]
                problems += doctor_rules.unexplained(place, odd, [*transactions, *self._transactions(sizes)])
        for where in raw:
            if where in unstable or where not in ends or (place.ledger, where[1]) not in ends:
                continue
            readable, position = self._position(place, where[1])
            if not readable:
                continue  # behind a transaction, which is named
            before = committed.get(where)
            after = before
            if position is not None and position[0] != before:
                after = self._committed(place.group, [where])[0].get(where)
            problem = doctor_rules.disagreement(
                place, where[1], (before, after), position, cluster, ends[where]
            )
            if problem is not None and problem.kind == "ahead" and problem.offset is not None:
                again_seen = self._after(place, where, problem.offset, ends)
                problem = replace(problem, again=again_seen)
            problems += [] if problem is None else [problem]
        return Report(place, described.state.name, len(described.members), len(raw), tuple(problems))

    def _committed(self, group: str, partitions: Sequence[Where]) -> tuple[dict[Where, int], set[Where]]:
        """The group's offsets, and those that an open transaction keeps from being told for STILL_SECONDS."""
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*where) for where in partitions])
        deadline = time.monotonic() + STILL_SECONDS
        while True:
            asked = self._admin.list_consumer_group_offsets(
                [wanted], require_stable=True, request_timeout=TIMEOUT_SECONDS
            )
            found = asked[group].result().topic_partitions
            unstable = {(tp.topic, tp.partition) for tp in found if tp.error is not None}
            if not unstable or time.monotonic() > deadline:
                for tp in found:
                    if tp.error is not None and tp.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                        raise KafkaException(tp.error)
                known = {
                    (tp.topic, tp.partition): int(tp.offset)
                    for tp in found
                    if tp.error is None and tp.offset >= 0
                }
                return known, unstable
            time.sleep(0.1)

    def _offsets(self, partitions: Iterable[Where], spec: Any, level: Any) -> dict[Where, int]:
        asked = {TopicPartition(*where): spec for where in partitions}
        if not asked:
            return {}
        answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT_SECONDS)
        return {(tp.topic, tp.partition): int(answer.result().offset) for tp, answer in answers.items()}

    def _ends(self, partitions: Iterable[Where]) -> dict[Where, Ends]:
        """The last stable offset is asked before the high watermark, which may move on between."""
        wanted, specs = list(partitions), OffsetSpec
        every, committed = IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED
        low = self._offsets(wanted, specs.earliest(), every)  # type: ignore[no-untyped-call]
        stable = self._offsets(wanted, specs.latest(), committed)  # type: ignore[no-untyped-call]
        high = self._offsets(wanted, specs.latest(), every)  # type: ignore[no-untyped-call]
        return {where: Ends(low[where], stable[where], high[where]) for where in wanted}

    def _transactions(self, sizes: Mapping[str, int]) -> list[Transaction]:
        """All that hold anything back now."""
        newest: dict[bytes, bytes | None] = {}
        for partition in range(sizes.get(doctor_log.TOPIC, 0)):
            for message in self._records((doctor_log.TOPIC, partition), "read_uncommitted")[0]:
                newest[message.key() or b""] = message.value()
        found = []
        for key, value in newest.items():
            name = doctor_log.identity(key)
            each = doctor_log.transaction(name, value) if name is not None and value is not None else None
            found += [] if each is None else [each]
        return found

    def _position(self, place: Place, partition: int) -> tuple[bool, tuple[int, str] | None]:
        """Whether the changelog can be read to its end, and the position of this raw partition found in it."""
        messages, whole = self._records((place.ledger, partition), "read_committed")
        positions = Positions()
        for _ in positions.strip((message.key() or b"", message.value()) for message in messages):
            pass
        found = positions.found.get(Source(place.raw, partition))
        return whole, None if found is None else (found.next, found.cluster)

    def _after(self, place: Place, raw: Where, offset: int, ends: Mapping[Where, Ends]) -> tuple[Span, ...]:
        """What was shared, or became a dead letter, since the raw record at this offset was appended."""
        first = self._records(raw, "read_uncommitted", offset, most=1)[0]
        if not first:
            return ()
        targets = [where for where in ((place.shared, raw[1]), (place.dlq, raw[1])) if where in ends]
        at = OffsetSpec.for_timestamp(first[0].timestamp()[1])
        found = self._offsets(targets, at, IsolationLevel.READ_UNCOMMITTED)
        return tuple(
            Span(*where, first_, ends[where].stable)
            for where, first_ in found.items()
            if 0 <= first_ < ends[where].stable
        )

    def _records(
        self, where: Where, isolation: str, first: int = 0, most: int | None = None
    ) -> tuple[list[Any], bool]:
        """Records of one partition from `first` to its end as of now, or as far as STILL_SECONDS show no more; and
        whether that is the end."""
        settings = self._connection.settings(
            group_id="doctor", isolation_level=isolation, enable_partition_eof=True, enable_auto_commit=False
        )
        quiet = logger(logging.NullHandler())
        consumer = Consumer(settings, logger=quiet)
        found: list[Any] = []
        try:
            high = self._offsets([where], OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)[where]  # type: ignore[no-untyped-call]
            low = self._offsets([where], OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)[where]  # type: ignore[no-untyped-call]
            at, progress = max(low, first), time.monotonic()
            consumer.assign([TopicPartition(*where, at)])
            while at < high and (most is None or len(found) < most):
                for message in consumer.consume(10_000 if most is None else most, 0.1):
                    error, offset = message.error(), int(message.offset() or 0)
                    if error is None:
                        found.append(message)
                        at, progress = offset + 1, time.monotonic()
                    elif error.code() == KafkaError._PARTITION_EOF:  # the last stable offset is no end
                        if offset > at:
                            at, progress = offset, time.monotonic()
                    elif error.code() in FORBIDDEN:
                        raise KafkaException(error)
                if time.monotonic() - progress > STILL_SECONDS:
                    return found, False
            return found, True
        finally:
            consumer.close()

    def _idle(self, place: Place) -> None:
        deadline = time.monotonic() + IDLE_SECONDS
        while True:
            found = self._admin.describe_consumer_groups([place.group], request_timeout=TIMEOUT_SECONDS)
            members = len(found[place.group].result().members)
            if not members:
                return
            if time.monotonic() > deadline:
                raise RetriableError(
                    f"{members} worker(s) of {place.group} live: nothing was changed.",
                    f"Stop every `sluice share {place.contract}`, on other machines too; then run this again.",
                )
            time.sleep(0.3)

    def _fence(self, identity: str) -> None:
        settings = self._connection.settings(transactional_id=identity, transaction_timeout_ms=10_000)
        producer = Producer(settings, logger=logger(logging.NullHandler()))
        deadline = time.monotonic() + 30
        while True:
            try:
                producer.init_transactions(TIMEOUT_SECONDS)
                return
            except KafkaException as problem:
                if not problem.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _set(self, group: str, where: Where, offset: int) -> None:
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*where, offset)])
        answers = self._admin.alter_consumer_group_offsets([wanted], request_timeout=TIMEOUT_SECONDS)
        for tp in answers[group].result().topic_partitions:
            if tp.error is not None:  # the call itself succeeds all the same
                raise KafkaException(tp.error)

    def _explained(self, problem: KafkaException) -> WallError | RetriableError:
        error = problem.args[0]
        if error.code() in FORBIDDEN:
            return WallError(
                f"The broker refused {self._connection.principal!r}: {error.name()}.",
                "`sluice doctor` needs the admin's secret: run it where the stack is, or set SLUICE_HOME.",
            )
        return RetriableError(
            f"No answer from the broker at {self._connection.bootstrap}: {error.name()}.",
            "Look at `sluice status`; then run this again.",
        )


def as_json(found: Sequence[Report], repaired: Sequence[str], now_ms: int) -> dict[str, Any]:
    """One object. `healthy`: no contract has a problem, after what was `repaired`."""
    return {
        "now_ms": now_ms,
        "healthy": not any(report.problems for report in found),
        "repaired": list(repaired),
        "contracts": [
            {
                "contract": report.place.contract,
                "raw": report.place.raw,
                "partitions": report.partitions,
                "group": report.place.group,
                "state": report.state,
                "members": report.members,
                "problems": [problem.plain() for problem in report.problems],
            }
            for report in found
        ],
    }
