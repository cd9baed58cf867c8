"""How far each consumer group is behind, asked of the broker by rights that show no record (DESCRIBE alone).

Lag is counted to the last stable offset, which is where a read_committed reader can get to; its age is now
minus the append time of the oldest record that waits. Neither is exact: see lag_status.waiting and
lag_age.append_times. Ages suppose that our clock and the broker's agree. Where the broker's was set back, they are
unknown until it has come again to where it was: nobody without READ can tell younger records from older ones then.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import ConfigurationError, RetriableError, WallError
from sluice.ops import lag_age, lag_status
from sluice.ops.lag_status import History, Look, Status
from streams.kafka.clients import Connection

TIMEOUT_SECONDS = 10.0
AGAIN_SECONDS = 0.5
SKEW_MS = 3_600_000  # by which the broker's clock may be ahead of ours
AHEAD_MS = 5_000  # by how much before an append time tells nothing: some clock was set back since
Where = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition of one group. `committed` None: the group has not committed there yet; `seconds` None:
    unknown.
    """

    topic: str
    partition: int
    committed: int | None
    end: int
    messages: int
    seconds: float | None
    expired: int
    status: Status | None


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One group: the sum of its partitions' messages, and the age of its oldest waiting record; None: unknown."""

    group: str
    state: str
    members: int
    messages: int
    seconds: float | None
    status: Status | None
    partitions: tuple[PartitionLag, ...]


class Lag:
    """Looks at the groups of one cluster, as one principal; remembers looks, from which the status
    follows.
    """

    def __init__(self, connection: Connection, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._connection = connection
        self._timeout = timeout_seconds
        self._refused = False
        self._disturbed = False  # a connection failed since the last list of groups that named one
        # Metadata of a second ago: with older ones it would go on asking a leader that has gone.
        fresh = connection.settings(topic_metadata_refresh_interval_ms=1000)
        settings: dict[str, Any] = {**fresh, "log_level": 0, "error_cb": self._error}
        self._admin = AdminClient(settings)
        self._history: dict[tuple[str, str, int], History] = defaultdict(History)

    def look(self, now_ms: int, groups: Sequence[str] = (), steady_ms: int | None = None) -> list[GroupLag]:
        """Every group this principal may see, or just `groups`, by name. `steady_ms`: of a clock that is never set, for
        what follows from several looks; default `now_ms`.

        Raises ConfigurationError for a group that is not there, WallError where the broker refuses,
        RetriableError where it does not answer.
        """
        try:
            names = sorted(groups) or self._names()
            described = self._describe(names) if names else {}
            committed = {name: self._committed(name, described[name]) for name in names}
            ends = self._ends({where for found in committed.values() for where in found})
            steady_ms = now_ms if steady_ms is None else steady_ms
            return [
                self._group(name, described[name], committed[name], ends, now_ms, steady_ms) for name in names
            ]
        except KafkaException as problem:
            raise self._explained(problem.args[0]) from None

    def _names(self) -> list[str]:
        """A broker that has just come back lists no group until it has read them: then an empty list says
        nothing, and is asked for again.
        """
        end = time.monotonic() + self._timeout
        while True:
            found = self._admin.list_consumer_groups(request_timeout=self._timeout).result()
            if found.errors and not found.valid:
                raise KafkaException(found.errors[0])
            self._admin.poll(0)  # hears what the error callback has to say
            if found.valid or not self._disturbed:
                self._disturbed = False
                return sorted(listing.group_id for listing in found.valid)
            if time.monotonic() > end:
                self._disturbed = False
                raise RetriableError(
                    f"The broker at {self._connection.bootstrap} did not answer at first, and lists no group yet.",
                    "Wait until it has come up, then run this again.",
                )
            time.sleep(AGAIN_SECONDS)

    def _describe(self, names: list[str]) -> dict[str, Any]:
        futures = self._admin.describe_consumer_groups(names, request_timeout=self._timeout)
        found = {name: future.result() for name, future in futures.items()}
        for name, group in found.items():
            if group.state == ConsumerGroupState.DEAD:
                raise ConfigurationError(
                    f"There is no consumer group {name!r}.",
                    "`sluice lag` without --group lists those there are.",
                )
        return found

    def _committed(self, name: str, described: Any) -> dict[Where, int | None]:
        """Where the group stands; None where a member reads a partition that it has not committed to yet."""
        future = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name)], request_timeout=self._timeout
        )[name]
        found: dict[Where, int | None] = {
            (tp.topic, tp.partition): None
            for member in described.members
            if member.assignment is not None
            for tp in member.assignment.topic_partitions
        }
        for tp in future.result().topic_partitions:
            if tp.error is None:
                found[tp.topic, tp.partition] = tp.offset if tp.offset >= 0 else None
        return found

    def _ends(self, partitions: set[Where]) -> dict[Where, tuple[int, int]]:
        """First offset and last stable offset of each partition; those the broker does not tell are left
        out.
        """
        first, last = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        low = self._offsets(dict.fromkeys(partitions, first))
        end = self._offsets(dict.fromkeys(partitions, last))
        return {where: (low[where][0], end[where][0]) for where in low.keys() & end.keys()}

    def _ages(self, oldest: Mapping[Where, int], now_ms: int) -> dict[Where, float]:
        def ask(times: Mapping[Where, int]) -> dict[Where, tuple[int, int] | None]:
            found = self._offsets({where: OffsetSpec.for_timestamp(time) for where, time in times.items()})
            return {where: answer if answer[0] >= 0 else None for where, answer in found.items()}

        appended = lag_age.append_times(oldest, now_ms + SKEW_MS, ask)
        return {
            where: max(0, now_ms - time) / 1000
            for where, time in appended.items()
            if time - now_ms <= AHEAD_MS
        }

    def _offsets(self, asked: Mapping[Where, Any]) -> dict[Where, tuple[int, int]]:
        if not asked:
            return {}
        futures = self._admin.list_offsets(
            {TopicPartition(*where): spec for where, spec in asked.items()},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self._timeout,
        )
        found = {}
        for tp, future in futures.items():
            try:
                result = future.result()
            except KafkaException as problem:
                if problem.args[0].code() not in _GONE:
                    raise
            else:
                found[tp.topic, tp.partition] = (result.offset, result.timestamp)
        return found

    def _group(
        self,
        name: str,
        described: Any,
        committed: Mapping[Where, int | None],
        ends: Mapping[Where, tuple[int, int]],
        now_ms: int,
        steady_ms: int,
    ) -> GroupLag:
        alive = bool(described.members)
        known = {where: (committed[where], *ends[where]) for where in sorted(committed) if where in ends}
        messages = {
            where: lag_status.waiting(at, low, end, lag_status.is_transactional(where[0]))
            for where, (at, low, end) in known.items()
        }
        ages = self._ages(
            {
                where: lag_status.oldest_unread(at, low, lag_status.is_transactional(where[0]))
                for where, (at, low, _) in known.items()
                if messages[where]
            },
            now_ms,
        )
        partitions = []
        for where, (at, low, end) in known.items():
            history = self._history[(name, *where)]
            history.add(Look(steady_ms, low if at is None else at, messages[where]), alive)
            partitions.append(
                PartitionLag(
                    topic=where[0],
                    partition=where[1],
                    committed=at,
                    end=end,
                    messages=messages[where],
                    seconds=ages.get(where) if messages[where] else 0.0,
                    expired=lag_status.expired(at, low),
                    status=lag_status.judge(history.looks, messages[where], steady_ms, alive),
                )
            )
        return GroupLag(
            group=name,
            state=described.state.name,
            members=len(described.members),
            messages=sum(messages.values()),
            seconds=_oldest(partitions),
            status=lag_status.worst([p.status for p in partitions]),
            partitions=tuple(partitions),
        )

    def _error(self, error: KafkaError) -> None:
        self._refused |= error.code() == KafkaError._AUTHENTICATION
        self._disturbed |= error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)

    def _explained(self, error: KafkaError) -> WallError | RetriableError:
        if self._refused or error.code() in _FORBIDDEN:
            return WallError(
                f"The broker refused {self._connection.principal!r}: {error.name()}.",
                "Check the group's name, or run as `admin`: SLUICE_USERNAME=admin, and SLUICE_HOME.",
            )
        return RetriableError(
            f"No answer from the broker at {self._connection.bootstrap}: {error.name()}.",
            f"Is the broker at {self._connection.bootstrap} up? Where the stack is, `sluice status` says so.",
        )


_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.LEADER_NOT_AVAILABLE,
)
_FORBIDDEN = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)


def _oldest(found: Sequence[PartitionLag | GroupLag]) -> float | None:
    """The greatest age where something waits, 0 where nothing does; None where none of these ages is known."""
    waiting = [each.seconds for each in found if each.messages]
    return max((age for age in waiting if age is not None), default=None) if waiting else 0.0


def as_json(found: Sequence[GroupLag], now_ms: int) -> dict[str, Any]:
    """One object: totals, groups, partitions. Times in seconds, null for unknown, `now_ms` epoch UTC."""
    return {
        "now_ms": now_ms,
        "messages": sum(group.messages for group in found),
        "seconds": _oldest(found),
        "groups": [_shown(group) for group in found],
    }


def _shown(group: GroupLag) -> dict[str, Any]:
    def plain(status: Status | None) -> str | None:
        return None if status is None else status.value

    return {
        "group": group.group,
        "state": group.state,
        "members": group.members,
        "messages": group.messages,
        "seconds": group.seconds,
        "status": plain(group.status),
        "partitions": [
            {
                "topic": p.topic,
                "partition": p.partition,
                "committed": p.committed,
                "end": p.end,
                "messages": p.messages,
                "seconds": p.seconds,
                "expired": p.expired,
                "status": plain(p.status),
            }
            for p in group.partitions
        ],
    }
