"""Open what a contract or a task needs on the cluster: topics, rights, schemas. Doing it again changes
nothing.

Asked as `admin`. All topics stamp records on append (LogAppendTime): age, lag and retention then mean what
they say, and an event's own time is a field of the record only.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import ContractError, FatalError, RetriableError, WallError
from sluice.stack import acls
from streams.kafka.clients import Connection, registry

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from schemas.contract import Contract

T = TypeVar("T")
TIMEOUT_SECONDS = 30
SCHEMAS_TOPIC = "_schemas"
CLOCK_SUBJECT = "sluice.clock"
CLOCK_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Clock",
    "namespace": "sluice",
    "doc": "How far the public clock of the source has come; see the contract's epochs.",
    "fields": [{"name": "clock_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
}
DAY_MS = 86_400_000
MODELS_KEPT_MS = 90 * DAY_MS
LETTER_BYTES = 1_048_588 + (64 << 10)  # the broker's default for a record, and headers
# Subscribers are outside the owner's wall, and the broker stops when its disk is full: what they may write is bounded.
ACKS_KEPT_BYTES, ACK_BYTES = 64 << 20, 16 << 10


# Each transaction removes what pages cover: after a day a restore would read millions of tombstones. Whoever misses one
# takes rows twice, and the page behind them undoes that.
LEDGER_TOMBSTONES_MS = 600_000
LEDGER_SEGMENT_BYTES = 4 << 20  # a minute of 1,250 events a second; .2 s of a restore


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be. `kept_ms` None: compacted, the newest record of each key stays for ever. `kept_bytes`
    a partition, and `record_bytes` a record: at most. `segment_bytes` is for a compacted one: a restore reads all of
    the newest segment. `tombstones_ms`: how long they stay, a day by default; also how long a replica may be away and
    still learn of them.
    """

    name: str
    partitions: int = 1
    kept_ms: int | None = None
    kept_bytes: int | None = None
    record_bytes: int | None = None
    segment_bytes: int = 16 << 20
    tombstones_ms: int | None = None

    @property
    def config(self) -> dict[str, str]:
        settings = {"message.timestamp.type": "LogAppendTime"}
        if self.record_bytes is not None:
            settings["max.message.bytes"] = str(self.record_bytes)
        if self.kept_bytes is not None:
            settings |= {"retention.bytes": str(self.kept_bytes), "segment.bytes": str(self.kept_bytes // 8)}
        if self.kept_ms is None:
            # Only closed segments are compacted: small ones keep a restore short.
            if self.tombstones_ms is not None:
                settings["delete.retention.ms"] = str(self.tombstones_ms)
            return settings | {
                "cleanup.policy": "compact",
                "segment.bytes": str(self.segment_bytes),
                "min.cleanable.dirty.ratio": "0.3",
            }
        # Only closed segments are deleted: a segment never holds more than an eighth of the time that is
        # promised.
        segment_ms = min(max(self.kept_ms // 8, 60_000), DAY_MS)
        return settings | {
            "cleanup.policy": "delete",
            "retention.ms": str(self.kept_ms),
            "segment.ms": str(segment_ms),
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """What was there at the end. `created`: topics that were new; `schema_ids`: registry id by subject."""

    created: tuple[str, ...] = ()
    schema_ids: Mapping[str, int] = field(default_factory=dict)


def contract_topics(contract: Contract) -> list[Topic]:
    """The topics of a contract. Pure."""
    topics, keep = contract.topics, contract.keep
    return [
        Topic(topics.raw, contract.partitions, keep.raw_ms),
        # Behind the headers of a dead letter stands the whole raw record, however long the broker let it be.
        Topic(topics.dlq, contract.partitions, keep.raw_ms, record_bytes=LETTER_BYTES),
        Topic(topics.shared, contract.partitions, keep.shared_ms),
        Topic(
            topics.ledger,
            contract.partitions,
            segment_bytes=LEDGER_SEGMENT_BYTES,
            tombstones_ms=LEDGER_TOMBSTONES_MS,
        ),
        Topic(topics.source),
    ]


def task_topics(task: str) -> list[Topic]:
    """The topics of a task. Pure; raises WallError for a name that no task may have."""
    models = acls.ModelTopics.of(task)
    return [
        Topic(models.manifests),
        Topic(models.chunks),  # the newest releases stay; the trainer clears older ones away
        Topic(models.acks, 1, MODELS_KEPT_MS, ACKS_KEPT_BYTES, ACK_BYTES),
        Topic(models.forecasts, kept_ms=MODELS_KEPT_MS),
        Topic(models.record),
    ]


def open_contract(contract: Contract, admin: Connection) -> Opened:
    """Topics, rights and schemas of a contract.

    Raises ContractError where the contract no longer fits what is there (partition count, incompatible
    schema), WallError where `admin` may not do this, RetriableError where broker or registry do not answer.
    """
    topics = contract.topics
    schemas = {
        f"{topics.raw}-value": contract.raw_schema,
        f"{topics.shared}-value": contract.shared_schema,
        CLOCK_SUBJECT: CLOCK_SCHEMA,
    }
    check_schemas(
        schemas, admin
    )  # a version that is refused changes nothing, not the topics' retention either
    created = open_topics(contract_topics(contract), acls.for_contract(contract), admin)
    return Opened(created, register(schemas, admin))


def open_task(
    task: str,
    contracts: Iterable[Contract | str],
    admin: Connection,
    schemas: Mapping[str, dict[str, Any]] | None = None,
) -> Opened:
    """Topics and rights of a task that learns from `contracts` (or from shared topics, by name), and its
    schemas.

    `schemas`: Avro by subject. Raises as `open_contract`.
    """
    shared = [found if isinstance(found, str) else found.topics.shared for found in contracts]
    created = open_topics(task_topics(task), acls.for_task(task, shared), admin)
    return Opened(created, register(schemas or {}, admin))


def open_registry(admin: Connection) -> Opened:
    """The registry's log and its right to it."""
    return Opened(open_topics([Topic(SCHEMAS_TOPIC)], acls.for_registry(SCHEMAS_TOPIC), admin))


def topics(admin: Connection) -> set[str]:
    """Names of all topics that `admin` may see."""
    from confluent_kafka import KafkaException

    try:
        return set(_client(admin).list_topics(timeout=TIMEOUT_SECONDS).topics)
    except KafkaException as problem:
        raise _translated(problem, admin) from None


def open_topics(wanted: Iterable[Topic], rights: Iterable[acls.Right], admin: Connection) -> tuple[str, ...]:
    """Create what is missing, refuse another partition count, grant `rights`. Returns the names that were
    new.
    """
    from confluent_kafka import KafkaException

    client = _client(admin)
    try:
        created = _topics(client, list(wanted))
        _grant(client, list(rights))
    except KafkaException as problem:
        raise _translated(problem, admin) from None
    return created


def check_schemas(schemas: Mapping[str, dict[str, Any]], admin: Connection) -> None:
    """Raises ContractError where one of them does not fit the versions of its subject; registers nothing."""
    from confluent_kafka.schema_registry import Schema

    with registry(admin) as client:
        known = set(_answer(client.get_subjects, "its subjects", admin))
        for subject in known.intersection(schemas):
            schema = Schema(json.dumps(schemas[subject]), "AVRO")
            ask = functools.partial(client.test_compatibility, subject, schema)
            if not _answer(ask, subject, admin) and not _is_version(client, subject, schema):
                raise _unfit(subject)


def _is_version(client: Any, subject: str, schema: Any) -> bool:
    """Whether it is registered, if not as the last one."""
    try:
        client.lookup_schema(subject, schema)
    except Exception:
        return False
    return True


def register(schemas: Mapping[str, dict[str, Any]], admin: Connection) -> dict[str, int]:
    """Register Avro schemas by subject. A schema that is there already keeps its id."""
    if not schemas:
        return {}
    from confluent_kafka.schema_registry import Schema

    with registry(admin) as client:  # left open, its sockets would warn when they are collected
        return {
            subject: _answer(
                functools.partial(client.register_schema, subject, Schema(json.dumps(schema), "AVRO")),
                subject,
                admin,
            )
            for subject, schema in schemas.items()
        }


def _answer(ask: Callable[[], T], subject: str, admin: Connection) -> T:
    """What the registry answers; its refusals as errors of ours."""
    from confluent_kafka.schema_registry import SchemaRegistryError

    try:
        return ask()
    except SchemaRegistryError as problem:
        if problem.http_status_code == 409:
            raise _unfit(subject) from None
        if problem.http_status_code in (401, 403):
            raise WallError(
                f"The registry refused {admin.principal!r} to write {subject}.",
                "Run this as the owner's admin.",
            ) from None
        raise RetriableError(
            f"The registry could not store {subject} (status {problem.http_status_code}).",
            "Look at `sluice status`, then run the command again.",
        ) from None
    except Exception as problem:  # the client lets its HTTP library's own kinds through
        raise RetriableError(
            f"The registry at {admin.registry_url} does not answer ({type(problem).__name__}).",
            "Look at `sluice status`, then run the command again.",
        ) from None


def _unfit(subject: str) -> ContractError:
    return ContractError(
        f"The schema of {subject} does not fit the versions that are registered.",
        "Readers of the old one would break: raise the major version, which opens new topics.",
    )


def _client(admin: Connection) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    return AdminClient({**admin.settings(), "log_level": 3})


def _topics(client: AdminClient, wanted: list[Topic]) -> tuple[str, ...]:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    existing = client.list_topics(timeout=TIMEOUT_SECONDS).topics
    new = []
    for topic in wanted:
        if topic.name not in existing:
            new.append(NewTopic(topic.name, topic.partitions, config=topic.config))
        elif len(existing[topic.name].partitions) != topic.partitions:
            raise ContractError(
                f"{topic.name} has {len(existing[topic.name].partitions)} partition(s), the contract says "
                f"{topic.partitions}; the count of a topic version never changes.",
                "Put the old number back, or raise the major version, which opens new topics.",
            )
    created = []
    for name, result in client.create_topics(new).items() if new else ():
        try:
            result.result(TIMEOUT_SECONDS)
            created.append(name)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else opened it just now
                raise
    _keep_config(client, [topic for topic in wanted if topic.name not in created])
    return tuple(created)


def _grant(client: AdminClient, rights: list[acls.Right]) -> None:
    """Store what is missing and wait until the broker's authorizer knows all: it learns of a stored right
    later.
    """
    bindings = {binding(right) for right in rights}
    missing = bindings - _bindings(client)
    if missing:
        for result in client.create_acls(list(missing)).values():
            result.result(TIMEOUT_SECONDS)
    end = time.monotonic() + TIMEOUT_SECONDS
    while bindings - _bindings(client):
        if time.monotonic() > end:
            raise RetriableError(
                "The broker stored the rights but does not apply them.",
                "Look at `sluice status`, then try again.",
            )
        time.sleep(0.01)


def _bindings(client: AdminClient) -> set[Any]:
    return set(client.describe_acls(any_binding()).result(TIMEOUT_SECONDS))


def any_binding() -> Any:
    """The filter that takes every right."""
    from confluent_kafka.admin import (
        AclBindingFilter,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    anything: Any = None
    return AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        anything,
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _keep_config(client: AdminClient, topics: list[Topic]) -> None:
    """Give topics that were there the settings of today: `keep` may have changed in the contract."""
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    if not topics:
        return
    changes = [
        ConfigResource(
            ResourceType.TOPIC,
            topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in topic.config.items()
            ],
        )
        for topic in topics
    ]
    for result in client.incremental_alter_configs(changes).values():
        result.result(TIMEOUT_SECONDS)


def binding(right: acls.Right) -> Any:
    """The right as the client library's own kind."""
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    kind = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional_id": ResourceType.TRANSACTIONAL_ID,
    }[right.kind]
    return AclBinding(
        kind,
        right.name,
        ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
        f"User:{right.principal}",
        "*",
        AclOperation[right.operation],
        AclPermissionType.ALLOW,
    )


def _translated(problem: Any, admin: Connection) -> FatalError | RetriableError:
    from confluent_kafka import KafkaError

    error = problem.args[0]
    refused = (
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    )
    if error.code() in refused:
        return WallError(
            f"The broker refused {admin.principal!r} to open topics ({error.name()}).",
            "Run this as the owner's admin, with the password in $SLUICE_HOME/secrets/admin.",
        )
    if error.code() == KafkaError.TOPIC_EXCEPTION or error.code() == KafkaError.INVALID_CONFIG:
        return FatalError(f"The broker does not take a topic's name or settings ({error.name()}).")
    return RetriableError(
        f"The broker at {admin.bootstrap} did not open the topics ({error.name()}).",
        "Look at `sluice status`, then run the command again.",
    )
