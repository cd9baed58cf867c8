"""Contracts and a task as Kubernetes resources: Strimzi's Kafka, its topics and users, and the share role. Pure.

What is opened through a broker's own interface elsewhere (provision.py, acls.py) is said here as YAML, from the same
values. `files` gives each file's name and documents; kubernetes_share.py holds what runs a worker.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas import names
from schemas.errors import ConfigurationError
from sluice.stack import acls, broker_settings, kubernetes_share, provision

if TYPE_CHECKING:
    from schemas.contract import Contract

Document = dict[str, Any]
STRIMZI = "kafka.strimzi.io/v1"
# The newest that Strimzi 1.1 and 1.2 bring and that keeps commit markers when a coordinator restarts: 4.3 does not
# (KAFKA-20734; docs/architecture.md).
KAFKA_VERSION, METADATA_VERSION = "4.2.1", "4.2-IV1"
CLUSTER, NODES = kubernetes_share.CLUSTER, 3
# Two of three copies must have a record before it counts: one broker may die, and nothing acknowledged dies with it.
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
# Of the embedded broker's settings those that the rules of the pipe need; the others make one node small.
NEEDED = (
    "auto.create.topics.enable",
    "group.initial.rebalance.delay.ms",
    "group.min.session.timeout.ms",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    "broker.session.timeout.ms",
    "broker.heartbeat.interval.ms",
    "log.retention.check.interval.ms",
)
MIB = 1 << 20
# Per broker. Subscribers are outside the owner's wall; a trainer that reads a year of shared records anew must not
# starve the share role; ops asks for positions only; nobody but an operator makes topics.
QUOTAS: dict[str, dict[str, int]] = {
    "producer": {"controllerMutationRate": 1},
    "share": {"controllerMutationRate": 1},
    "registry": {"producerByteRate": MIB, "controllerMutationRate": 1},
    "trainer": {"producerByteRate": 16 * MIB, "consumerByteRate": 64 * MIB, "controllerMutationRate": 1},
    "subscriber": {
        "producerByteRate": MIB // 16,
        "consumerByteRate": 16 * MIB,
        "requestPercentage": 25,
        "controllerMutationRate": 1,
    },
    "ops": {"producerByteRate": MIB // 16, "consumerByteRate": MIB, "controllerMutationRate": 1},
}
RESOURCES = {"topic": "topic", "group": "group", "transactional_id": "transactionalId"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where it runs. `image` has the extra `share`; `registry_url` answers like Confluent's and knows the roles'
    passwords; `storage_class` None is the cluster's own choice; `disk` is each broker's.
    """

    namespace: str = "sluice"
    image: str = "sluice:0.1.0"
    registry_url: str = "http://registry:8081"
    disk: str = "100Gi"
    storage_class: str | None = None
    keys_storage_class: str | None = None


def files(
    contracts: Sequence[tuple[Contract, str]],
    tasks: Iterable[tuple[str, Sequence[str]]] = (),
    place: Place | None = None,
) -> dict[str, list[Document]]:
    """Documents by file name. `contracts`: each with its text; `tasks`: name, and contracts or their shared topics.

    Raises ConfigurationError where two of them would have resources of one name, WallError for a task that asks for
    more than shared topics.
    """
    place = place or Place()
    opened = [provision.Topic(provision.SCHEMAS_TOPIC)]
    rights = acls.for_registry(provision.SCHEMAS_TOPIC)
    for contract, _ in contracts:
        opened += provision.contract_topics(contract)
        rights += acls.for_contract(contract)
    for task, sources in tasks:
        opened += provision.task_topics(task)
        shared = [name if names.is_shared_topic(name) else f"{name}.shared.v1" for name in sources]
        rights += acls.for_task(task, shared)
    made: dict[str, list[Document]] = {
        "00-namespace.yaml": [_namespace(place.namespace)],
        "10-kafka.yaml": [_kafka(), _pool(place)],
        "20-topics.yaml": [_topic(each) for each in opened],
        "30-users.yaml": users(rights),
        "40-share.yaml": kubernetes_share.common(place),
    }
    workers = [kubernetes_share.worker(contract, text, place) for contract, text in contracts]
    _unique([each for documents in (*made.values(), *workers) for each in documents])
    made |= {f"41-{documents[0]['metadata']['name']}.yaml": documents for documents in workers}
    for document in (each for documents in made.values() for each in documents):
        if document["kind"] != "Namespace":
            document["metadata"]["namespace"] = place.namespace
    return made


def users(rights: Iterable[acls.Right]) -> list[Document]:
    """One KafkaUser a principal, with exactly these rights, and `admin`, who is a super user."""
    by_principal: dict[str, set[acls.Right]] = {}
    for right in rights:
        by_principal.setdefault(right.principal, set()).add(right)
    found = [_user("admin", {})]
    for principal, own in sorted(by_principal.items()):
        operations: dict[tuple[str, str, bool], list[str]] = {}
        for right in sorted(own):
            resource = (right.kind, right.name, right.prefixed)
            operations.setdefault(resource, []).append(right.operation.capitalize())
        rules = [
            {
                "resource": {
                    "type": RESOURCES[kind],
                    "name": name,
                    "patternType": "prefix" if prefixed else "literal",
                },
                "operations": allowed,
                "host": "*",
            }
            for (kind, name, prefixed), allowed in operations.items()
        ]
        spec: Document = {"authorization": {"type": "simple", "acls": rules}}
        if principal in QUOTAS:
            spec["quotas"] = dict(QUOTAS[principal])
        found.append(_user(principal, spec))
    return found


def _user(name: str, spec: Document) -> Document:
    spec = {"authentication": {"type": "scram-sha-512"}, **spec}
    return {"apiVersion": STRIMZI, "kind": "KafkaUser", "metadata": _labelled(name), "spec": spec}


def _topic(topic: provision.Topic) -> Document:
    """Under its own name where Kubernetes takes it (`_schemas` it does not)."""
    name = topic.name if _NAME.fullmatch(topic.name) else topic.name.strip("_").replace("_", "-")
    spec: Document = {} if name == topic.name else {"topicName": topic.name}
    config = {**topic.config, "min.insync.replicas": REPLICATED["min.insync.replicas"]}
    spec |= {"partitions": topic.partitions, "replicas": NODES, "config": config}
    return {"apiVersion": STRIMZI, "kind": "KafkaTopic", "metadata": _labelled(name), "spec": spec}


def _kafka() -> Document:
    listener = {
        "name": "tls",
        "port": kubernetes_share.KAFKA_PORT,
        "type": "internal",
        "tls": True,
        "authentication": {"type": "scram-sha-512"},
        "networkPolicyPeers": [
            {"podSelector": {"matchLabels": kubernetes_share.PART}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}},
        ],
    }
    kafka = {
        "version": KAFKA_VERSION,
        "metadataVersion": METADATA_VERSION,
        "listeners": [listener],
        "authorization": {"type": "simple", "superUsers": ["admin"]},
        "config": {**{name: broker_settings.NODE[name] for name in NEEDED}, **REPLICATED},
        "template": {"podDisruptionBudget": {"maxUnavailable": 1}},  # with two in sync, one may be away
    }
    return {
        "apiVersion": STRIMZI,
        "kind": "Kafka",
        "metadata": {"name": CLUSTER},
        "spec": {"kafka": kafka, "entityOperator": {"topicOperator": {}, "userOperator": {}}},
    }


def _pool(place: Place) -> Document:
    volume: Document = {
        "id": 0,
        "type": "persistent-claim",
        "size": place.disk,
        "deleteClaim": False,
        "kraftMetadata": "shared",
    }
    if place.storage_class is not None:
        volume["class"] = place.storage_class
    apart = {  # the loss of a machine is then the loss of one broker
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {
            "matchLabels": {"strimzi.io/cluster": CLUSTER, "strimzi.io/name": f"{CLUSTER}-kafka"}
        },
    }
    spec = {
        "replicas": NODES,
        "roles": ["controller", "broker"],
        "storage": {"type": "jbod", "volumes": [volume]},
        "resources": {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
        "jvmOptions": {"-Xms": "1g", "-Xmx": "1g"},  # the rest is page cache
        "template": {"pod": {"topologySpreadConstraints": [apart]}},
    }
    return {"apiVersion": STRIMZI, "kind": "KafkaNodePool", "metadata": _labelled("nodes"), "spec": spec}


def _namespace(name: str) -> Document:
    labels = {
        "pod-security.kubernetes.io/enforce": "baseline",  # Strimzi's own pods ask for no more, nor are all restricted
        "pod-security.kubernetes.io/warn": "restricted",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _labelled(name: str) -> Document:
    return {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}}


def _unique(documents: Sequence[Document]) -> None:
    seen = Counter(f"{each['kind']} {each['metadata']['name']}" for each in documents)
    twice = sorted(name for name, times in seen.items() if times > 1)
    if twice:
        raise ConfigurationError(
            f"Two contracts or tasks make resources of one name: {', '.join(twice)}.",
            "Rename one of them: dots and dashes count as the same here.",
        )
