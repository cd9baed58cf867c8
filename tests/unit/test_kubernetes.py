"""What `sluice deploy kubernetes` writes: valid for Kubernetes, Strimzi and KEDA, with the very rights of acls.py."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from schemas.contract import EXAMPLES, Contract, load, parse
from schemas.errors import ConfigurationError, WallError
from sluice.cli.deploy import app, text_of
from sluice.stack import acls, provision
from sluice.stack.kubernetes import NODES, REPLICATED, RESOURCES, Place, files
from sluice.stack.kubernetes_share import name_of
from streams.privacy import keystore
from trainers.spec import load as load_task

ROOT = Path(__file__).parents[2]
SCHEMAS, CHECKED_IN = ROOT / "tests" / "schemas", ROOT / "deploy" / "kubernetes"
NAME, TASK = "traffic.detector-counts", "traffic"
TEXT = (EXAMPLES / f"{NAME}.yaml").read_text(encoding="utf-8")
OPERATIONS = {"All", "Read", "Write", "Describe"}  # of Strimzi's AclOperation
FORBIDDEN = (  # settings that Strimzi keeps for itself and drops, save two (KafkaClusterSpec of its API reference)
    *(
        "listeners",
        "advertised.",
        "broker.",
        "listener.",
        "inter.broker.listener.name",
        "sasl.",
        "ssl.",
        "security.",
    ),
    *("log.dir", "authorizer.", "super.user", "node.id", "process.roles", "controller.", "metadata.log.dir"),
)
ALLOWED = {"broker.session.timeout.ms", "broker.heartbeat.interval.ms"}
Document = dict[str, Any]


def made(text: str = TEXT, place: Place | None = None) -> dict[str, list[Document]]:
    return files([(parse(text, EXAMPLES), text)], [(TASK, (NAME,))], place)


def all_of(documents: dict[str, list[Document]], kind: str | None = None) -> list[Document]:
    return [each for found in documents.values() for each in found if kind in (None, each["kind"])]


def only(documents: dict[str, list[Document]], kind: str) -> Document:
    (found,) = all_of(documents, kind)
    return found


@pytest.fixture(scope="module")
def validators() -> dict[tuple[str, str], jsonschema.protocols.Validator]:
    """By apiVersion and kind. A resource of a kind that is not here fails its test."""
    kubernetes = json.loads((SCHEMAS / "kubernetes.json").read_text())["$defs"]
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    found: dict[tuple[str, str], Any] = {}
    for name, schema in kubernetes.items():
        kinds, versions = (
            schema.get("properties", {}).get(each, {}).get("enum", []) for each in ("kind", "apiVersion")
        )
        for kind in kinds:
            for version in versions:
                found[version, kind] = {"$ref": f"#/$defs/{name}", "$defs": kubernetes}
    for file in ("strimzi.json", "keda.json"):
        for kind, schema in json.loads((SCHEMAS / file).read_text()).items():
            schema["properties"]["metadata"] = {"$ref": f"#/$defs/{meta}"}
            found[schema["properties"]["apiVersion"]["const"], kind] = {**schema, "$defs": kubernetes}
    return {key: jsonschema.Draft202012Validator(schema) for key, schema in found.items()}


def errors(validators: dict[tuple[str, str], Any], document: Document) -> list[str]:
    validator = validators[document["apiVersion"], document["kind"]]
    return [f"{each.json_path}: {each.message[:200]}" for each in validator.iter_errors(document)]


def objects(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all objects in a document, but Kafka's own settings: theirs are free."""
    if isinstance(node, dict) and path[-1:] != ("config",):
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from objects(child, (*path, name))


def at(document: Document, path: tuple[Any, ...]) -> Any:
    found: Any = document
    for name in path:
        found = found[name]
    return found


def test_every_resource_is_valid(validators: dict[tuple[str, str], Any]) -> None:
    kinds = set()
    for document in all_of(made(place=Place(storage_class="fast", keys_storage_class="shared"))):
        assert errors(validators, document) == []
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "sluice"
        kinds.add(document["kind"])
    assert kinds >= {"Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser", "StatefulSet", "ScaledObject"}
    assert kinds >= {"PodDisruptionBudget", "NetworkPolicy", "TriggerAuthentication", "PersistentVolumeClaim"}


def test_an_unknown_field_is_refused_wherever_it_stands(validators: dict[tuple[str, str], Any]) -> None:
    tried = 0
    for document in all_of(made()):
        for path in objects(document):
            broken = copy.deepcopy(document)
            at(broken, path)["surprise"] = {"x": [1]}
            assert errors(validators, broken), (document["kind"], path)
            tried += 1
    assert tried > 300


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Kafka", ("apiVersion",), "kafka.strimzi.io/v2"),
        ("Kafka", ("spec", "kafka", "listeners", 0, "type"), "public"),
        ("Kafka", ("spec", "kafka", "listeners", 0, "port"), "9093"),
        ("KafkaNodePool", ("spec", "replicas"), "3"),
        ("StatefulSet", ("spec", "template", "spec", "securityContext", "fsGroup"), "1000"),
        ("StatefulSet", ("spec", "template", "spec", "containers", 0, "args"), "share"),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "lagThreshold"), 500_000),
    ],
)
def test_a_wrong_value_is_refused(
    validators: dict[tuple[str, str], Any], kind: str, path: tuple[Any, ...], value: object
) -> None:
    document = copy.deepcopy(only(made(), kind))
    at(document, path[:-1])[path[-1]] = value
    with pytest.raises((AssertionError, KeyError)):
        assert errors(validators, document) == []


def test_the_checked_in_files_are_what_the_command_writes(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["kubernetes", NAME, "--task", TASK, "--output", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    written = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_text(encoding="utf-8") for file in CHECKED_IN.glob("*.yaml")}
    expected = made()
    assert set(written) == set(expected)
    for name, documents in expected.items():
        assert list(yaml.safe_load_all(written[name])) == documents


def test_the_task_of_the_test_is_the_shipped_one() -> None:
    spec = load_task(ROOT / "trainers" / "tasks" / f"{TASK}.yaml")
    assert (spec.task, spec.contracts) == (TASK, (NAME,))


def test_users_have_the_very_rights_of_the_embedded_broker() -> None:
    contract = load(NAME)
    wanted = {
        *acls.for_contract(contract),
        *acls.for_task(TASK, [contract.topics.shared]),
        *acls.for_registry(provision.SCHEMAS_TOPIC),
    }
    kinds = {theirs: ours for ours, theirs in RESOURCES.items()}
    found = set()
    users = {each["metadata"]["name"]: each["spec"] for each in all_of(made(), "KafkaUser")}
    assert all(spec["authentication"] == {"type": "scram-sha-512"} for spec in users.values())
    assert "authorization" not in users.pop("admin")  # a super user, and the only one
    assert only(made(), "Kafka")["spec"]["kafka"]["authorization"] == {
        "type": "simple",
        "superUsers": ["admin"],
    }
    for principal, spec in users.items():
        for rule in spec["authorization"]["acls"]:
            assert rule.get("type", "allow") == "allow"
            resource = rule["resource"]
            assert set(rule["operations"]) <= OPERATIONS
            for operation in rule["operations"]:
                prefixed = {"literal": False, "prefix": True}[resource["patternType"]]
                kind: Any = kinds[resource["type"]]
                right = acls.Right(principal, kind, resource["name"], operation.upper(), prefixed)
                assert right not in found
                found.add(right)
    assert found == wanted


def test_topics_are_those_of_provision_on_three_brokers() -> None:
    contract = load(NAME)
    wanted = {
        each.name: each
        for each in [
            provision.Topic(provision.SCHEMAS_TOPIC),
            *provision.contract_topics(contract),
            *provision.task_topics(TASK),
        ]
    }
    found = {}
    for document in all_of(made(), "KafkaTopic"):
        spec = document["spec"]
        topic = wanted[spec.get("topicName", document["metadata"]["name"])]
        assert (spec["partitions"], spec["replicas"]) == (topic.partitions, NODES)
        assert spec["config"] == {**topic.config, "min.insync.replicas": "2"}
        found[topic.name] = document
    assert set(found) == set(wanted)


def test_brokers_stand_apart_and_take_the_settings_that_the_pipe_needs() -> None:
    pool, kafka = only(made(), "KafkaNodePool")["spec"], only(made(), "Kafka")["spec"]["kafka"]
    assert pool["replicas"] == NODES
    assert set(pool["roles"]) == {"controller", "broker"}
    assert pool["template"]["pod"]["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    config = kafka["config"]
    assert REPLICATED.items() <= config.items()
    assert config["transaction.abort.timed.out.transaction.cleanup.interval.ms"] == "1000"
    assert not [name for name in config if name.startswith(FORBIDDEN) and name not in ALLOWED]
    assert kafka["version"].startswith("4.2.")  # 4.3 drops commit markers (docs/architecture.md)
    assert [each["tls"] and each["authentication"]["type"] for each in kafka["listeners"]] == [
        "scram-sha-512"
    ]


def test_a_worker_is_its_ordinal_and_may_do_little() -> None:
    workers = only(made(), "StatefulSet")
    pod = workers["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "replicas" not in workers["spec"]  # the scaler's
    args, environment = container["args"], {each["name"]: each for each in container["env"]}
    assert args[args.index("--slot") + 1] == "$(SLOT)"
    assert "pod-index" in environment["SLOT"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert "--no-open" in args
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert set(volumes) == {each["name"] for each in container["volumeMounts"]}
    assert volumes["secret"]["secret"]["secretName"] == "share"  # the role's own, no other's
    assert {each["mode"] for each in volumes["secret"]["secret"]["items"]} == {0o400}


def test_all_workers_write_to_one_key_folder_and_the_first_makes_the_key() -> None:
    found = made()
    claim, workers = only(found, "PersistentVolumeClaim"), only(found, "StatefulSet")["spec"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pod = workers["template"]["spec"]
    keys = next(each for each in pod["volumes"] if each["name"] == "keys")
    mount = next(each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "keys")
    assert keys["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert not mount.get("readOnly")
    home = next(each["value"] for each in pod["containers"][0]["env"] if each["name"] == "SLUICE_HOME")
    file = keystore.path_of(Path(home), load(NAME).privacy.population)
    assert str(file.parent) == mount["mountPath"]
    assert workers["podManagementPolicy"] == "OrderedReady"
    assert pod["containers"][0]["readinessProbe"]["exec"]["command"] == ["test", "-s", str(file)]


@pytest.mark.parametrize(("partitions", "most"), [(1, 1), (8, 8), (200, 64)])
def test_lag_scales_up_to_one_worker_a_partition(partitions: int, most: int) -> None:
    found = made(f"{TEXT}partitions: {partitions}\n")
    scaled, budget = only(found, "ScaledObject")["spec"], only(found, "PodDisruptionBudget")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, most)  # slots end at 63
    workers = only(found, "StatefulSet")
    assert scaled["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": workers["metadata"]["name"],
    }
    assert budget == {"maxUnavailable": 1, "selector": workers["spec"]["selector"]}
    (trigger,) = scaled["triggers"]
    rights = acls.for_contract(load(NAME))
    for kind, name in (
        ("topic", trigger["metadata"]["topic"]),
        ("group", trigger["metadata"]["consumerGroup"]),
    ):
        assert acls.Right("ops", kind, name, "DESCRIBE") in rights  # type: ignore[arg-type]
    secrets = only(found, "TriggerAuthentication")["spec"]["secretTargetRef"]
    assert {each["name"] for each in secrets if each["parameter"] == "password"} == {"ops"}


def test_the_contract_in_the_pod_is_the_contract() -> None:
    text = next(each for each in all_of(made(), "ConfigMap") if "contract.yaml" in each["data"])["data"]
    again = yaml.safe_load(text_of([text]))["contract.yaml"]
    assert again == TEXT
    assert parse(again, EXAMPLES).public() == load(NAME).public()


def test_two_contracts_share_users_and_keys_and_nothing_else() -> None:
    other = TEXT.replace(f"contract: {NAME}", "contract: traffic.speeds")
    found = files([(parse(text, EXAMPLES), text) for text in (TEXT, other)])
    assert len(all_of(found, "StatefulSet")) == len(all_of(found, "ScaledObject")) == 2
    assert len(all_of(found, "PersistentVolumeClaim")) == 1
    names = [(each["kind"], each["metadata"]["name"]) for each in all_of(found)]
    assert len(names) == len(set(names))
    twin = TEXT.replace(f"contract: {NAME}", "contract: traffic-detector.counts")
    with pytest.raises(ConfigurationError, match="share-traffic-detector-counts"):
        files([(parse(text, EXAMPLES), text) for text in (TEXT, twin)])


def test_a_task_whose_topics_could_be_a_contracts_is_refused() -> None:
    with pytest.raises(WallError):
        files([], [("x.raw", (NAME,))])


def test_long_names_fit_and_stay_apart() -> None:
    def contract(name: str) -> Contract:
        return parse(TEXT.replace(f"contract: {NAME}", f"contract: {name}"), EXAMPLES)

    names = [name_of(contract("a" * 40 + end)) for end in (".b", ".c")]
    assert len(set(names)) == 2
    assert all(len(name) + len("-0123456789") <= 63 for name in names)


def test_the_sizing_in_the_docs_is_what_its_arithmetic_prints() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    code, printed = (re.search(rf"```{kind}\n(.*?)```", text, re.S) for kind in ("python", "text"))
    assert code is not None
    assert printed is not None
    ran = subprocess.run(
        [sys.executable, "-c", code[1]], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == printed[1]
