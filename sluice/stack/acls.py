"""Who may do what, generated from a contract or a task: pure, and the whole of the wall's rules.

The broker denies whatever is not listed here. READ and WRITE include DESCRIBE. Topics and groups are named in
full; a prefix ends in a dot, so that `traffic` never reaches `traffic-lights`. It does reach `traffic.lights`:
transactional ids and subscribers' groups are held apart by principal, not by contract. Which names a task or
a contract may have, so that their topics never meet: schemas/names.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas import names
from schemas.errors import WallError

if TYPE_CHECKING:
    from schemas.contract import Contract

Operation = Literal["READ", "WRITE", "DESCRIBE", "ALL"]
Kind = Literal["topic", "group", "transactional_id"]


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """`principal` may do `operation` on the resource; `prefixed` means all names that begin so."""

    principal: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False


@dataclass(frozen=True, slots=True)
class ModelTopics:
    """Topics of a task: signed manifests, their files, subscribers' answers, forecasts, the trainer's own
    record.
    """

    manifests: str
    chunks: str
    acks: str
    forecasts: str
    record: str

    @classmethod
    def of(cls, task: str) -> ModelTopics:
        """Raises WallError for a name under which a task's topics could be others'."""
        try:
            names.task_name(task)
        except ValueError as problem:
            raise WallError(f"No task may be named {task!r}: {problem}.", "Rename the task.") from None
        return cls(
            f"models.{task}.v1",
            f"models.{task}.chunks.v1",
            f"models.{task}.acks.v1",
            f"models.{task}.forecasts.v1",
            f"models.{task}.record.v1",
        )


def for_contract(contract: Contract) -> list[Right]:
    """Rights on the topics of one contract: the owner's side, and ops, which sees positions but no record."""
    topics, name = contract.topics, contract.contract
    return [
        *_topic("producer", "WRITE", topics.raw, topics.dlq, topics.source),
        *_topic("producer", "READ", topics.source),
        *_transactions("producer", f"publish.{name}."),
        *_topic("share", "READ", topics.raw, topics.ledger),
        *_topic("share", "WRITE", topics.shared, topics.dlq, topics.ledger),
        Right("share", "group", f"share.{name}", "READ"),
        *_transactions("share", f"share.{name}."),
        *_topic("ops", "DESCRIBE", topics.raw, topics.shared, topics.dlq),
        Right("ops", "group", f"share.{name}", "DESCRIBE"),
    ]


def for_task(task: str, shared_topics: Iterable[str]) -> list[Right]:
    """Rights on the topics of one task. Trainers read shared topics alone, subscribers models alone.

    Raises WallError for a topic that is no contract's shared one: a task file is not the owner's word.
    """
    models, shared_topics = ModelTopics.of(task), tuple(shared_topics)
    for topic in shared_topics:
        if not names.is_shared_topic(topic):
            raise WallError(
                f"Task {task!r} asks for {topic!r}, which is no shared topic.",
                "Name contracts, or their shared topics, under `contracts` of the task.",
            )
    own = (models.manifests, models.chunks, models.forecasts, models.record)
    return [
        *_topic("trainer", "READ", *shared_topics, *own, models.acks),
        *_topic("trainer", "WRITE", *own),
        Right("trainer", "group", f"train.{task}", "READ"),
        *_transactions("trainer", f"train.{task}."),
        *_topic("subscriber", "READ", models.manifests, models.chunks, models.forecasts),
        *_topic("subscriber", "WRITE", models.acks),
        Right("subscriber", "group", f"subscribe.{task}.", "READ", prefixed=True),
        *_topic("ops", "DESCRIBE", models.manifests, models.chunks, models.acks, models.forecasts),
        Right("ops", "group", f"train.{task}", "DESCRIBE"),
        Right("ops", "group", f"subscribe.{task}.", "DESCRIBE", prefixed=True),
    ]


def for_registry(topic: str = "_schemas") -> list[Right]:
    """The registry's own log, and nothing else.

    Its client library asks every second who coordinates the group that it must name; nobody ever joins it.
    """
    return [Right("registry", "topic", topic, "ALL"), Right("registry", "group", topic, "DESCRIBE")]


def _topic(principal: str, operation: Operation, *names: str) -> list[Right]:
    return [Right(principal, "topic", name, operation) for name in names]


def _transactions(principal: str, prefix: str) -> list[Right]:
    return [
        Right(principal, "transactional_id", prefix, operation, prefixed=True)
        for operation in ("WRITE", "DESCRIBE")
    ]
