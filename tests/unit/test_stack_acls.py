"""Rights as a function of contract and task."""

from __future__ import annotations

import pytest

from schemas import contract as contracts
from schemas.errors import ContractError, WallError
from sluice.stack import acls
from sluice.stack.acls import ModelTopics, Right
from trainers.shared import shared_topic


@pytest.fixture(scope="module")
def contract() -> contracts.Contract:
    return contracts.load("traffic.detector-counts")


def test_nobody_but_the_owners_side_has_any_right_on_raw_data(contract: contracts.Contract) -> None:
    closed = {contract.topics.raw, contract.topics.dlq, contract.topics.ledger, contract.topics.source}
    rights = [*acls.for_contract(contract), *acls.for_task("t", [contract.topics.shared])]
    outside = {
        right for right in rights if right.name in closed and right.principal not in ("producer", "share")
    }
    assert {(right.principal, right.operation) for right in outside} == {("ops", "DESCRIBE")}


def test_ops_sees_positions_and_no_record(contract: contracts.Contract) -> None:
    rights = [*acls.for_contract(contract), *acls.for_task("t", [contract.topics.shared])]
    assert {right.operation for right in rights if right.principal == "ops"} == {"DESCRIBE"}


def test_a_trainer_reads_what_its_task_names_and_nothing_else() -> None:
    read = {
        right.name
        for right in acls.for_task("t", ["a.shared.v1", "b.shared.v1"])
        if right.principal == "trainer" and right.kind == "topic" and right.operation == "READ"
    }
    models = ModelTopics.of("t")
    own = {models.manifests, models.chunks, models.forecasts, models.record, models.acks}
    assert read == {"a.shared.v1", "b.shared.v1"} | own


def test_a_subscriber_writes_answers_alone() -> None:
    written = [right for right in acls.for_task("t", []) if right.principal == "subscriber"]
    assert {right.name for right in written if right.operation == "WRITE"} == {"models.t.acks.v1"}


def test_prefixes_end_where_a_name_ends(contract: contracts.Contract) -> None:
    """`traffic` must not reach `traffic-lights`."""
    rights = [*acls.for_contract(contract), *acls.for_task("traffic", [])]
    prefixes = [right.name for right in rights if right.prefixed]
    assert prefixes
    assert all(name.endswith(".") for name in prefixes)
    assert not any(right.prefixed and right.kind == "topic" for right in rights)


def test_the_registry_has_its_log_alone() -> None:
    rights = acls.for_registry()
    assert Right("registry", "topic", "_schemas", "ALL") in rights
    assert {(right.principal, right.name, right.prefixed) for right in rights} == {
        ("registry", "_schemas", False)
    }


def test_no_super_user_gets_a_right_and_none_is_for_all(contract: contracts.Contract) -> None:
    rights = [*acls.for_contract(contract), *acls.for_task("t", []), *acls.for_registry()]
    assert {right.principal for right in rights}.isdisjoint({"admin", "broker", "*", "ANONYMOUS"})
    assert "*" not in {right.name for right in rights}
    assert len(rights) == len(set(rights))


@pytest.mark.parametrize(
    "task", ["city.raw", "traffic.record", "traffic.acks", "shared", "a/b", "..", "Ä", ""]
)
def test_a_task_whose_topics_would_be_others_gets_no_rights(task: str) -> None:
    """`models.city` + `city.raw`: the raw topic of the one were the manifests of the other."""
    with pytest.raises(WallError, match="No task may be named"):
        acls.for_task(task, [])


@pytest.mark.parametrize(
    "topic",
    ["a.raw.v1", "city.shared.vehicles.raw.v1", "_schemas", "a.shared.v1.dlq.v1", "a.shared.v1\n", "*"],
)
def test_a_task_gets_no_right_on_what_is_not_shared(topic: str) -> None:
    with pytest.raises(WallError, match="no shared topic"):
        acls.for_task("t", ["a.shared.v1", topic])


def test_no_contract_is_named_as_a_tasks_topics_are(contract: contracts.Contract) -> None:
    text = (contracts.EXAMPLES / "traffic.detector-counts.yaml").read_text()
    for name in ("models", "models.city"):
        with pytest.raises(ContractError, match="begin with `models`"):
            contracts.parse(text.replace(f"contract: {contract.contract}", f"contract: {name}"))


def test_a_tasks_contract_never_stands_for_another_topic() -> None:
    assert shared_topic("city.shared.vehicles") == "city.shared.vehicles.shared.v1"
    assert shared_topic("city.shared.vehicles.raw.v1") == "city.shared.vehicles.raw.v1.shared.v1"
    assert shared_topic("city.counts.shared.v2") == "city.counts.shared.v2"
