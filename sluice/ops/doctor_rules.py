"""What is wrong with a contract's partitions, in plain words: pure functions of what the broker said.

Two kinds of tear (docs/architecture.md, rule 7). A transaction that nobody ends holds back whoever reads with
`read_committed`; to abort it loses nothing that anybody was promised. And group and changelog of a share worker
may disagree on how far raw was read; the changelog is right, as it holds the very state that came of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sluice.ops.doctor_log import OPEN, Transaction

Where = tuple[str, int]
OFFSETS = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class Ends:
    """First offset kept, last stable offset, high watermark of one partition."""

    low: int
    stable: int
    high: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contract's major version lives. Topics that are not there have no partition."""

    contract: str
    raw: str
    shared: str
    dlq: str
    ledger: str
    source: str
    group: str

    @classmethod
    def of(cls, contract: str, major: int) -> Place:
        topics = {
            kind: f"{contract}.{kind}.v{major}" for kind in ("raw", "shared", "dlq", "ledger", "source")
        }
        return cls(contract, **topics, group=f"share.{contract}")

    @property
    def topics(self) -> tuple[str, ...]:
        return self.raw, self.shared, self.dlq, self.ledger, self.source


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets `first` to `last` (not included) of one partition."""

    topic: str
    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] {self.first:,} to {self.last:,}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `repair` says what --repair does, empty where it does nothing; `remedy` what else.

    `identity`: the transactional id to fence. `offset`: what the group's offset of the one partition in `where`
    becomes. `again`: what readers may see twice after that.
    """

    kind: str
    where: tuple[Where, ...]
    what: str
    readers: str
    repair: str = ""
    remedy: str = ""
    identity: str | None = None
    offset: int | None = None
    again: tuple[Span, ...] = ()

    def plain(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "partitions": [{"topic": topic, "partition": partition} for topic, partition in self.where],
            "what": self.what,
            "readers": self.readers,
            "repair": self.repair or None,
            "remedy": self.remedy or None,
            "transactional_id": self.identity,
            "offset": self.offset,
            "again": [
                {"topic": span.topic, "partition": span.partition, "first": span.first, "last": span.last}
                for span in self.again
            ],
        }


def named(where: Iterable[Where]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in where)


def held_back(ends: Mapping[Where, Ends]) -> list[Where]:
    """Partitions on which a transaction is open."""
    return sorted(where for where, each in ends.items() if each.stable < each.high)


def hanging(
    place: Place,
    ends: Mapping[Where, Ends],
    unstable: Collection[Where],
    transactions: Iterable[Transaction],
    now_ms: int,
    older_ms: int,
) -> list[Problem]:
    """Transactions that hold partitions of the contract back and began more than `older_ms` ago.

    `now_ms` is our clock and the beginning the broker's: a difference between them counts.
    """
    problems = []
    held = set(held_back(ends))
    for each in sorted(transactions, key=lambda found: found.identity):
        where = tuple(sorted(each.partitions & held))
        if any(
            topic == OFFSETS for topic, _ in each.partitions
        ):  # of some group: only its owner can tell which
            where = tuple(sorted({*where, *unstable}))
        age_ms = now_ms - each.began_ms
        if not where or age_ms <= older_ms:
            continue
        what = (
            f"A transaction of {each.identity!r} (producer {each.producer_id}), begun {seconds(age_ms)} ago, "
        )
        what += f"is {each.state} and holds back {named(where)}."
        readers = "; ".join(
            f"{topic}[{partition}] up to {ends[topic, partition].stable:,} of {ends[topic, partition].high:,}"
            for topic, partition in where
            if (topic, partition) in held
        )
        readers = f"Readers with read_committed see {readers}, and nothing after it." if readers else ""
        if set(where) & set(unstable):
            readers += f" Whoever starts a worker of {place.group} waits for its offsets, for ever."
        if each.state != OPEN:
            remedy = (
                "The broker's coordinator is at it: look at the broker's log; a restart makes it try again."
            )
            problems.append(Problem("ending", where, what, readers.strip(), remedy=remedy))
            continue
        repair = (
            "Abort it: its producer is fenced, what it wrote in this transaction never becomes visible, and readers "
            "go on behind it. Nothing is seen twice."
        )
        remedy = f"If left alone, the broker aborts it {seconds(each.timeout_ms)} after its beginning."
        problems.append(
            Problem("hanging", where, what, readers.strip(), repair, remedy, identity=each.identity)
        )
    return problems


def unexplained(
    held: Iterable[Where], unstable: Collection[Where], transactions: Iterable[Transaction]
) -> list[Where]:
    """Those that are held back by no transaction that the coordinator knows; `unstable` ones: by none on offsets."""
    known = {where for each in transactions for where in each.partitions}
    offsets = any(topic == OFFSETS for topic, _ in known)
    return [where for where in held if where not in known] + ([] if offsets else sorted(unstable))


def forgotten(where: Where) -> Problem:
    """Seen twice at the same offset, `unexplained`."""
    return Problem(
        "unknown-transaction",
        (where,),
        f"{named([where])}, or a group's offset of it, is held back by a transaction that its coordinator knows "
        "nothing of.",
        "Readers with read_committed see nothing behind it; a worker of the group does not start.",
        remedy="Kafka's own `kafka-transactions.sh find-hanging` names its producer, and `abort` ends it.",
    )


def disagreement(
    place: Place,
    partition: int,
    committed: tuple[int | None, int | None],
    position: tuple[int, str] | None,
    cluster: str,
    ends: Ends,
) -> Problem | None:
    """Whether the group's offset of a raw partition is what the changelog says.

    `committed`: before and after the changelog was read, as a living worker goes on meanwhile. `position`: the
    changelog's next offset and its cluster. `again` is left for whoever can ask for it.
    """
    where, before, after = ((place.raw, partition),), *committed
    group = (
        f"{place.group} is committed at {'nothing' if before is None else f'{before:,}'} in {named(where)}"
    )
    if position is None:
        if before is None:
            return None
        return Problem(
            "no-changelog",
            where,
            f"{group}, and {place.ledger}[{partition}] knows nothing of it: the state is gone.",
            "Nothing wrong yet: a worker stops this partition before it shares anything.",
            remedy="Bring the ledger topic back from a copy. Without it, nobody knows what was spent of the budget.",
        )
    known, written = position
    if written != cluster:
        return Problem(
            "other-cluster",
            where,
            f"{place.ledger}[{partition}] was written in another Kafka cluster.",
            "Nothing wrong yet: a worker stops this partition before it shares anything.",
            remedy="Offsets of two clusters cannot be compared: open the contract anew in this one.",
        )
    if known > ends.high:
        return Problem(
            "ends-before",
            where,
            f"{named(where)} ends at {ends.high:,}, before the changelog's {known:,}: it was made anew or cut.",
            "Nothing wrong yet: a worker stops this partition before it shares anything.",
            remedy="Bring the raw topic back from a copy, or open a new major version of the contract.",
        )
    if before == known or (before is not None and after is not None and before <= known <= after):
        return None
    what = f"{group}, its changelog at {known:,}: they tore apart."
    if before is not None and known < before:
        return Problem(
            "ahead",
            where,
            what,
            f"Readers miss nothing yet: a worker stops this partition. If it went on at {before:,}, {before - known:,} "
            "offsets would never be part of the ledger, and perhaps never shared.",
            f"Set the group's offset back to {known:,}, where the changelog is.",
            offset=known,
        )
    lost = max(0, ends.low - known)
    return Problem(
        "behind",
        where,
        what,
        "Readers see everything once: what lies between is shared, and in the ledger. If a worker went on from "
        "the group's offset, the ledger would deny it all a second time.",
        f"Set the group's offset forward to {known:,}, where the changelog is. Nothing is seen twice."
        + (
            f" {lost:,} offsets behind it were deleted by retention before anybody read them." if lost else ""
        ),
        offset=known,
    )


def seconds(ms: int) -> str:
    return f"{ms / 1000:.0f} s" if ms < 120_000 else f"{ms / 60_000:.0f} min"
