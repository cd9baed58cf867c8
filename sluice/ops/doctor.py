"""Looks at every partition of a contract as admin, and repairs what can be repaired. The rules: doctor_rules.py.

Not repaired: a transaction that its coordinator has forgotten, which only Kafka's WriteTxnMarkers ends, and a
changelog that is gone. Both are named.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaException

from schemas.errors import ConfigurationError, FatalError, RetriableError, WallError
from sluice.ops import doctor_rules as rules
from sluice.ops.doctor_broker import STILL_SECONDS, Broker
from sluice.ops.doctor_rules import Ends, Place, Problem, Span, Where
from streams.kafka.clients import Connection
from streams.kafka.reader import FORBIDDEN
from streams.kafka.records import Source
from streams.kafka.session import Tuning
from streams.kafka.state import Positions

OLDER_SECONDS = 2 * Tuning().transaction_timeout_ms / 1000  # the broker has ended any of ours by then
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

    def __init__(
        self,
        connection: Connection,
        older_seconds: float = OLDER_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """`older_seconds`: a transaction that began longer ago hangs. `idle_seconds`: how long a repair waits for
        the group's members to go."""
        self._connection = connection
        self._older_ms = int(older_seconds * 1000)
        self._idle_seconds = idle_seconds
        self._broker = Broker(connection)

    def look(self, now_ms: int, contract: str | None = None) -> list[Report]:
        """All contracts that have a raw topic, or the one of this name. Raises ConfigurationError for another."""
        try:
            topics, cluster = self._broker.topics()
            found = [Place.of(m[1], int(m[2])) for m in map(_RAW.fullmatch, sorted(topics)) if m]
            places = [place for place in found if contract in (None, place.contract)]
            if contract is not None and not places:
                names = ", ".join(sorted({place.contract for place in found})) or "none"
                raise ConfigurationError(
                    f"No contract {contract!r} is open on this broker.", f"Open: {names}."
                )
            return [self._report(place, topics, cluster, now_ms) for place in places]
        except KafkaException as problem:
            raise self._explained(problem) from None
        except ValueError as problem:
            raise FatalError(
                f"The broker's record of transactions cannot be read: {problem}.",
                "This broker is newer than this sluice: update it, or use Kafka's kafka-transactions.sh.",
            ) from None
        finally:
            self._broker.close()

    def repair(self, report: Report) -> list[str]:
        """Does what the problems' `repair` says, and says what was done. What stands behind a transaction shows at
        the next look only. Raises RetriableError while the group has a member, before anything is changed.
        """
        done, group = [], report.place.group
        try:
            self._wait_until_idle(report.place)
            for problem in report.problems:
                if problem.identity is not None:
                    self._broker.fence(problem.identity)
                    done.append(f"aborted the transaction of {problem.identity}")
                elif problem.offset is not None:
                    self._broker.set_offset(group, problem.where[0], problem.offset)
                    done.append(f"set {group} to {problem.offset:,} in {rules.named(problem.where)}")
        except KafkaException as failed:
            raise self._explained(failed) from None
        return done

    def _wait_until_idle(self, place: Place) -> None:
        deadline = time.monotonic() + self._idle_seconds
        while members := self._broker.group(place.group)[1]:
            if time.monotonic() > deadline:
                raise RetriableError(
                    f"{members} worker(s) of {place.group} live: nothing was changed.",
                    f"Stop every `sluice share` of {place.contract}, on other machines too; then run this again.",
                )
            time.sleep(0.3)

    def _report(self, place: Place, topics: Mapping[str, int], cluster: str, now_ms: int) -> Report:
        wanted = [(topic, each) for topic in place.topics for each in range(topics.get(topic, 0))]
        raw = [where for where in wanted if where[0] == place.raw]
        state, members = self._broker.group(place.group)
        committed, unstable = self._broker.committed(place.group, raw)
        ends = self._broker.ends(wanted)
        problems = self._held_back(place, topics, ends, unstable, now_ms)
        named = {where for problem in problems for where in problem.where}
        for where in raw:
            ledger = (place.ledger, where[1])
            if where in unstable or ledger in named or ledger not in ends:
                continue  # behind a transaction that is named, which is to be ended first
            problems += self._disagreement(place, where, committed.get(where), cluster, ends)
        return Report(place, state, members, len(raw), tuple(problems))

    def _held_back(
        self,
        place: Place,
        topics: Mapping[str, int],
        ends: Mapping[Where, Ends],
        unstable: Collection[Where],
        now_ms: int,
    ) -> list[Problem]:
        held = rules.held_back(ends)
        if not held and not unstable:
            return []
        known = self._broker.transactions(topics)
        problems = rules.hanging(place, ends, unstable, known, now_ms, self._older_ms)
        odd = rules.unexplained(held, unstable, known)
        if odd:  # ended between two questions, or forgotten
            time.sleep(STILL_SECONDS)
            again, known = self._broker.ends(held), self._broker.transactions(topics)
            held = [where for where in held if ends[where].stable == again[where].stable < again[where].high]
            unstable = self._broker.committed(place.group, sorted(unstable))[1] if unstable else ()
            odd = sorted(set(odd).intersection(rules.unexplained(held, unstable, known)))
        return problems + [rules.forgotten(where) for where in odd]

    def _disagreement(
        self, place: Place, where: Where, before: int | None, cluster: str, ends: Mapping[Where, Ends]
    ) -> list[Problem]:
        messages, whole = self._broker.records((place.ledger, where[1]), "read_committed")
        if not whole:
            return []  # a transaction that is not old enough to be named
        positions = Positions()
        for _ in positions.strip((message.key() or b"", message.value()) for message in messages):
            pass
        found = positions.found.get(Source(*where))
        position = None if found is None else (found.next, found.cluster)
        after = before
        if position is not None and position[0] != before:  # a living worker goes on meanwhile
            committed, unstable = self._broker.committed(place.group, [where])
            if unstable:
                return []
            after = committed.get(where)
            ends = {**ends, **self._broker.ends([where])}
        problem = rules.disagreement(place, where[1], (before, after), position, cluster, ends[where])
        if problem is None:
            return []
        if problem.kind == "ahead" and problem.offset is not None:
            problem = replace(problem, again=self._shared_since(place, where, problem.offset, ends))
        return [problem]

    def _shared_since(
        self, place: Place, raw: Where, offset: int, ends: Mapping[Where, Ends]
    ) -> tuple[Span, ...]:
        """What was shared, or became a dead letter, since the raw record at this offset was appended."""
        first = self._broker.records(raw, "read_uncommitted", offset, most=1)[0]
        if not first:
            return ()
        targets = [where for where in ((place.shared, raw[1]), (place.dlq, raw[1])) if where in ends]
        began = self._broker.since(targets, first[0].timestamp()[1])
        return tuple(
            Span(*where, began[where], ends[where].stable)
            for where in targets
            if 0 <= began[where] < ends[where].stable
        )

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
