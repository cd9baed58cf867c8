"""The share role on Kubernetes: a StatefulSet a contract, whose ordinal is the worker slot, scaled on lag. Pure.

Noise keys. A unit's noise and its ledger row must be the same whichever worker meets it, and the chain moves forward
when an epoch's key is destroyed, so all workers of an owner use one key folder, and write to it: a ReadWriteMany
volume whose file system keeps POSIX locks across machines (NFS 4, CephFS). A Secret could be read by all but not
moved forward. The first worker makes the chain, and the next starts only once the chain is there (the readiness
probe, `OrderedReady`). Should two folders ever part, the ledger's check value refuses the foreign key, and the worker
stops. Back this volume up: without its keys the open epochs end.

A worker keeps nothing else: ledger, clocks and positions come back from Kafka.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.privacy import keystore

if TYPE_CHECKING:
    from schemas.contract import Contract
    from sluice.stack.kubernetes import Place

Document = dict[str, Any]
CLUSTER, KAFKA_PORT = "sluice", 9093
PART = {"app.kubernetes.io/part-of": "sluice"}  # all pods of our roles, none of Strimzi's
HOME, KEYS, USER = "/var/lib/sluice", "noise-keys", 1000  # as in the Dockerfile
LAST_SLOT = 63  # streams/kafka/slots.py
# SIGTERM commits what is in hand: a transaction may take 10 s, the watchdog ends what overruns by 15.
GRACE_SECONDS = 30
# Another worker for every so many records behind: two to four seconds' work of one (docs/scale.md).
LAG_A_WORKER = 500_000
LONGEST = 47  # of a StatefulSet's name: a label of its pods appends a hash, at most 63 in all


def name_of(contract: Contract) -> str:
    """`share-` and the contract's name with dashes for dots; a long one is cut, and told apart by a hash."""
    name = "share-" + contract.contract.replace(".", "-").replace("_", "-")
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(contract.contract.encode()).hexdigest()[:8]}"


def common(place: Place) -> list[Document]:
    """What all workers of the owner share: the keys' volume, the scaler's way to the lag, and who may talk to whom."""
    claim: Document = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if place.keys_storage_class is not None:
        claim["storageClassName"] = place.keys_storage_class
    scaler = {
        "configMapTargetRef": [{"parameter": "username", "name": "scaler", "key": "username"}],
        "secretTargetRef": [
            {"parameter": "password", "name": "ops", "key": "password"},
            {"parameter": "ca", "name": f"{CLUSTER}-cluster-ca-cert", "key": "ca.crt"},
        ],
    }
    to_kafka = {
        "podSelector": {"matchLabels": {"strimzi.io/cluster": CLUSTER, "strimzi.io/name": f"{CLUSTER}-kafka"}}
    }
    to_registry = {"podSelector": {"matchLabels": {**PART, "app.kubernetes.io/component": "registry"}}}
    to_names = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    roles = {  # raw records can leave a worker for the broker and for nowhere else
        "podSelector": {"matchLabels": PART},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {"to": [to_kafka], "ports": [_port(KAFKA_PORT)]},
            {"to": [to_registry], "ports": [_port(8081)]},
            {"to": [to_names], "ports": [_port(53, "UDP"), _port(53)]},
        ],
    }
    registry = {
        "podSelector": to_registry["podSelector"],
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": PART}}], "ports": [_port(8081)]}],
    }
    return [
        _made("v1", "PersistentVolumeClaim", KEYS, claim),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "scaler"},
            "data": {"username": "ops"},
        },
        _made("keda.sh/v1alpha1", "TriggerAuthentication", "lag", scaler),
        _made("networking.k8s.io/v1", "NetworkPolicy", "roles", roles),
        _made("networking.k8s.io/v1", "NetworkPolicy", "registry", registry),
    ]


def worker(contract: Contract, text: str, place: Place) -> list[Document]:
    """The contract's text, its workers, their scaler and their disruption budget."""
    name = name_of(contract)
    pods = {**PART, "app.kubernetes.io/component": "share", "app.kubernetes.io/instance": name}
    key = keystore.path_of(Path(HOME), contract.privacy.population)
    contract_file: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    contract_file["data"] = {"contract.yaml": text}
    workers = {
        "podManagementPolicy": "OrderedReady",
        "selector": {"matchLabels": pods},
        "template": {"metadata": {"labels": pods}, "spec": _pod(name, key, place)},
    }
    return [
        contract_file,
        _made("apps/v1", "StatefulSet", name, workers),
        _made(
            "policy/v1", "PodDisruptionBudget", name, {"maxUnavailable": 1, "selector": {"matchLabels": pods}}
        ),
        _made("keda.sh/v1alpha1", "ScaledObject", name, _scaling(contract, name)),
    ]


def _pod(name: str, key: Path, place: Place) -> Document:
    environment: Document = {
        "SLUICE_HOME": HOME,
        "SLUICE_BOOTSTRAP": f"{CLUSTER}-kafka-bootstrap:{KAFKA_PORT}",
        "SLUICE_PROTOCOL": "SASL_SSL",
        "SLUICE_CA_FILE": "/run/sluice/ca/ca.crt",
        "SLUICE_PASSWORD_FILE": "/run/sluice/secret/password",
        "SLUICE_REGISTRY_URL": place.registry_url,
        "MALLOC_ARENA_MAX": "2",
    }
    ordinal = {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}
    container = {
        "name": "share",
        "image": place.image,
        "args": ["sluice", "share", "/run/sluice/contract.yaml", "--slot", "$(SLOT)", "--no-open", "--json"],
        "env": [
            *({"name": key, "value": value} for key, value in environment.items()),
            {"name": "SLOT", "valueFrom": ordinal},
        ],
        "readinessProbe": {  # the population's noise key is there: the next worker finds it
            "exec": {"command": ["test", "-s", str(key)]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        },
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "keys", "mountPath": f"{HOME}/keys"},
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "secret", "mountPath": "/run/sluice/secret", "readOnly": True},
            {"name": "ca", "mountPath": "/run/sluice/ca", "readOnly": True},
            {
                "name": "contract",
                "mountPath": "/run/sluice/contract.yaml",
                "subPath": "contract.yaml",
                "readOnly": True,
            },
        ],
    }
    password, authority = _item("password", 0o400), _item("ca.crt", 0o444)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # Files of a Secret belong to root: the group lets this user read them (0400 becomes 0440). OnRootMismatch, so
        # that no mount opens the noise keys, which the worker refuses when others than their owner can read them.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "home", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "keys", "persistentVolumeClaim": {"claimName": KEYS}},
            {"name": "secret", "secret": {"secretName": "share", "defaultMode": 0o400, "items": [password]}},
            {"name": "ca", "secret": {"secretName": f"{CLUSTER}-cluster-ca-cert", "items": [authority]}},
            {"name": "contract", "configMap": {"name": name}},
        ],
        "restartPolicy": "Always",
    }


def _scaling(contract: Contract, name: str) -> Document:
    """No more workers than partitions. One up in half a minute, one down in five: each change is a rebalance."""
    lag = {
        "bootstrapServers": f"{CLUSTER}-kafka-bootstrap:{KAFKA_PORT}",
        "consumerGroup": f"share.{contract.contract}",
        "topic": contract.topics.raw,
        "lagThreshold": str(LAG_A_WORKER),
        "offsetResetPolicy": "earliest",
        "version": "3.6.0",  # the scaler's own default is 1.0.0, which Kafka 4 no longer speaks (KIP-896)
        "sasl": "scram_sha512",
        "tls": "enable",
    }
    behavior = {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 30}]},
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
        },
    }
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name},
        "pollingInterval": 15,
        "minReplicaCount": 1,
        "maxReplicaCount": min(contract.partitions, LAST_SLOT + 1),
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [{"type": "kafka", "metadata": lag, "authenticationRef": {"name": "lag"}}],
    }


def _made(version: str, kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _port(number: int, protocol: str = "TCP") -> Document:
    return {"port": number, "protocol": protocol}


def _item(key: str, mode: int) -> Document:
    return {"key": key, "path": key, "mode": mode}
