"""The wall on the real broker: every cell of who x what x which topic, the refused beside the rightful.

Asked over the bare protocol (wire.py), because a refusal that only a polite client obeys is none. The table
of what is allowed is written here by hand, not derived from the code that grants it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from schemas import contract as contracts
from sluice.stack import acls, provision, security
from sluice.stack.home import Home
from streams.kafka.clients import Connection
from tests.integration import wire
from tests.integration.conftest import RunningStack

NAME, TASK = "wall.counts", "wall"
SECRET = b"what nobody else may see"
NOOP = b'{"keytype":"NOOP","magic":0}'  # a record that every registry skips
OPERATIONS = ("read", "describe", "write")
ROLES = ("producer", "share", "trainer", "subscriber", "ops", "registry")
OWNER = {kind: f"{NAME}.{kind}.v1" for kind in ("raw", "shared", "dlq", "ledger", "source")}
MODELS = {kind: f"models.{TASK}.{kind}.v1" for kind in ("chunks", "acks", "forecasts", "record")}
TOPICS = {**OWNER, "manifests": f"models.{TASK}.v1", **MODELS, "_schemas": "_schemas"}
INTERNAL = ("__consumer_offsets", "__transaction_state")

# topic: (who may read, who may write, who else may see that it is there)
ALLOWED: dict[str, tuple[str, str, str]] = {
    "raw": ("share", "producer", "ops"),
    "dlq": ("", "producer share", "ops"),
    "ledger": ("share", "share", ""),
    "source": ("producer", "producer", ""),
    "shared": ("trainer", "share", "ops"),
    "manifests": ("trainer subscriber", "trainer", "ops"),
    "chunks": ("trainer subscriber", "trainer", "ops"),
    "forecasts": ("trainer subscriber", "trainer", "ops"),
    "acks": ("trainer", "subscriber", "ops"),
    "record": ("trainer", "trainer", ""),
    "_schemas": ("registry", "registry", ""),
}
GROUPS = {f"share.{NAME}": "share", f"train.{TASK}": "trainer", f"subscribe.{TASK}.app": "subscriber"}
SOURCE_OF = {"share": OWNER["raw"], "trainer": OWNER["shared"], "subscriber": MODELS["chunks"]}
TRANSACTIONS = {
    f"publish.{NAME}.file": "producer",
    f"share.{NAME}.0": "share",
    f"train.{TASK}.0": "trainer",
}


@pytest.fixture(scope="module")
def wall(stack: RunningStack) -> RunningStack:
    """Contract and task are open, and every topic holds a secret, internal ones included."""
    text = (contracts.EXAMPLES / "traffic.detector-counts.yaml").read_text()
    contract = contracts.parse(text.replace("contract: traffic.detector-counts", f"contract: {NAME}"))
    assert contract.topics.raw == OWNER["raw"]
    provision.open_contract(contract, stack.admin)
    provision.open_task(TASK, [contract], stack.admin)
    for topic in TOPICS.values():
        with signed_in(stack, "admin") as admin:
            if topic != "_schemas":
                assert wire.patient(lambda: admin.produce(topic, b"key", SECRET)) == wire.NONE  # noqa: B023
    for group, role in GROUPS.items():
        with signed_in(stack, role) as client:
            assert wire.patient(lambda: client.coordinator(group, 0)) == wire.NONE  # noqa: B023
            assert wire.patient(lambda: client.commit_offset(group, SOURCE_OF[role])) == wire.NONE  # noqa: B023
    for name, role in TRANSACTIONS.items():
        with signed_in(stack, role) as client:
            assert wire.patient(lambda: client.coordinator(name, 1)) == wire.NONE  # noqa: B023
            assert wire.patient(lambda: client.begin_as(name)) == wire.NONE  # noqa: B023
    return stack


def port(stack: RunningStack, listener: str = "CLIENT") -> int:
    for line in (stack.home / "config" / "broker.properties").read_text().splitlines():
        if line.startswith("listeners="):
            found = dict(part.split("://") for part in line.removeprefix("listeners=").split(","))
            return int(found[listener].rpartition(":")[2])
    raise AssertionError(listener)


def signed_in(stack: RunningStack, role: str, listener: str = "CLIENT", client_id: str = "wire") -> wire.Wire:
    client = wire.Wire(port(stack, listener), client_id)
    secret = security.password(Home(stack.home), role).get_secret_value()
    assert client.sign_in(role, secret) == wire.NONE
    return client


def may(role: str, operation: str, topic: str) -> bool:
    read, write, see = (names.split() for names in ALLOWED[topic])
    return role in {"read": read, "write": write, "describe": [*read, *write, *see]}[operation]


def rightful(operation: str, topic: str) -> str:
    return next((role for role in ROLES if may(role, operation, topic)), "admin")


def attempt(client: wire.Wire, operation: str, name: str) -> int:
    """The error code; and where it is one, that not a byte of data came with it."""
    if operation == "read":
        code, data = client.fetch(name)
        assert bool(data) == (code == wire.NONE)
        assert SECRET not in data or code == wire.NONE
        return code
    if operation == "describe":
        code = client.describe(name)
        assert (name in client.listed()) == (code == wire.NONE)
        return code
    key, value = (NOOP, None) if name == "_schemas" else (b"key", SECRET)
    return client.produce(name, key, value)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("topic", TOPICS)
def test_topics(wall: RunningStack, topic: str, operation: str) -> None:
    name, codes = TOPICS[topic], {}
    with signed_in(wall, rightful(operation, topic)) as client:
        assert attempt(client, operation, name) == wire.NONE
    for role in ROLES:
        with signed_in(wall, role) as client:
            codes[role] = attempt(client, operation, name)
    allowed = {role for role in ROLES if may(role, operation, topic)}
    assert codes == {role: wire.NONE if role in allowed else wire.TOPIC_REFUSED for role in ROLES}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("topic", INTERNAL)
def test_internal_topics(wall: RunningStack, topic: str, operation: str) -> None:
    """Nobody but a super user; and it passes the wall only to be stopped by Kafka itself where it would
    write.
    """
    with signed_in(wall, "admin") as client:
        right = attempt(client, operation, topic)
    assert right == (wire.INVALID_TOPIC if operation == "write" else wire.NONE)
    for role in ROLES:
        with signed_in(wall, role, client_id="__admin_client") as client:  # the name that Kafka lets write
            assert attempt(client, operation, topic) == wire.TOPIC_REFUSED, role


def test_the_log_of_rights_and_passwords(wall: RunningStack) -> None:
    """`__cluster_metadata`: refused by name on the broker's listeners, and to all but the node on the
    controller's.
    """
    with signed_in(wall, "broker", "CONTROLLER") as client:
        epoch = next(e for e in range(1, 100) if client.fetch_metadata_log(e)[0] != wire.FENCED_EPOCH)
        code, data = client.fetch_metadata_log(epoch)
        assert code == wire.NONE
        assert b"trainer" in data
    for role in ROLES:
        with signed_in(wall, role, "CONTROLLER") as client:
            assert client.fetch_metadata_log(epoch) == (wire.CLUSTER_REFUSED, b""), role
        for listener in ("CLIENT", "INTERNAL"):
            with signed_in(wall, role, listener) as client:
                for operation in OPERATIONS:
                    assert attempt(client, operation, "__cluster_metadata") == wire.TOPIC_REFUSED, role


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_inter_broker_listener_has_the_same_wall(wall: RunningStack, operation: str) -> None:
    """A role's own password opens the connection there too, and no door more."""
    with signed_in(wall, rightful(operation, "raw"), "INTERNAL") as client:
        assert attempt(client, operation, OWNER["raw"]) == wire.NONE
    for role in ("trainer", "subscriber"):
        with signed_in(wall, role, "INTERNAL") as client:
            assert attempt(client, operation, OWNER["raw"]) == wire.TOPIC_REFUSED


def test_nobody_poses_as_a_replica(wall: RunningStack) -> None:
    with signed_in(wall, "broker") as client:
        assert client.fetch(OWNER["raw"], replica=1)[0] not in (wire.TOPIC_REFUSED, wire.CLUSTER_REFUSED)
    for role in ROLES:
        with signed_in(wall, role) as client:
            assert client.fetch(OWNER["raw"], replica=1) == (wire.TOPIC_REFUSED, b""), role


@pytest.mark.parametrize("group", GROUPS)
def test_groups(wall: RunningStack, group: str) -> None:
    """Positions, membership and deletion of a group belong to its role; ops may look."""
    owner, topic = GROUPS[group], SOURCE_OF[GROUPS[group]]
    with signed_in(wall, owner) as client:
        assert client.offsets_of(group, topic) == wire.NONE
        assert client.describe_group(group) == wire.NONE
        assert client.coordinator(group, 0) == wire.NONE
        assert client.commit_offset(group, topic) == wire.NONE
        assert client.delete_group(group) == wire.GROUP_REFUSED  # not even it: DELETE is the admin's
    for role in ROLES:
        if role == owner:
            continue
        with signed_in(wall, role) as client:
            seen = wire.NONE if role == "ops" else wire.GROUP_REFUSED
            assert client.describe_group(group) == seen, role
            assert client.coordinator(group, 0) == seen, role
            assert client.offsets_of(group, topic) == (seen if role == "ops" else wire.GROUP_REFUSED), role
            assert client.commit_offset(group, topic) == wire.GROUP_REFUSED, role
            assert client.join_group(group) == wire.GROUP_REFUSED, role
            assert client.delete_group(group) == wire.GROUP_REFUSED, role


@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_transactional_ids(wall: RunningStack, transaction: str) -> None:
    """Nobody fences, ends or finds another role's producer."""
    owner = TRANSACTIONS[transaction]
    with signed_in(wall, owner) as client:
        assert client.coordinator(transaction, 1) == wire.NONE
        assert client.begin_as(transaction) == wire.NONE
        assert client.end_transaction(transaction) != wire.TRANSACTION_REFUSED
    for role in ROLES:
        if role == owner:
            continue
        with signed_in(wall, role) as client:
            assert client.coordinator(transaction, 1) == wire.TRANSACTION_REFUSED, role
            assert client.begin_as(transaction) == wire.TRANSACTION_REFUSED, role
            assert client.end_transaction(transaction) == wire.TRANSACTION_REFUSED, role


@pytest.mark.parametrize("listener", security.LISTENERS)
def test_listeners(wall: RunningStack, listener: str) -> None:
    """Nobody comes in without the right password, not even as far as being told what there is."""
    number = port(wall, listener)
    signed_in(wall, "broker", listener).socket.close()
    for user, password in (("broker", "wrong"), ("broker", ""), ("admin", "admin"), ("nobody", "x")):
        with wire.Wire(number) as client:
            assert client.sign_in(user, password) == wire.SIGN_IN_FAILED
            with pytest.raises(OSError):
                client.fetch(OWNER["raw"])
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "OAUTHBEARER", "GSSAPI"):
        with wire.Wire(number) as client:
            assert client.handshake(mechanism) == wire.UNSUPPORTED_MECHANISM
    for ask in (wire.Wire.listed, wire.Wire.fetch_metadata_log):
        with wire.Wire(number) as client, pytest.raises(OSError):  # anonymous
            ask(client)


def test_rights_and_passwords_are_the_admins(wall: RunningStack) -> None:
    """The same requests through a common client: who may change the wall itself."""
    from confluent_kafka.admin import (
        NewTopic,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    right = next(iter(acls.for_registry("wall.none")))
    wanted = UserScramCredentialUpsertion(
        "wall.newcomer", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"x"
    )
    requests: dict[str, Callable[[AdminClient], dict[Any, Any]]] = {
        "create a topic": lambda c: c.create_topics([NewTopic("wall.none", 1)], validate_only=True),
        "grant a right": lambda c: c.create_acls([provision.binding(right)]),
        "set a password": lambda c: c.alter_user_scram_credentials([wanted]),
    }
    for what, ask in requests.items():
        admin = AdminClient(wall.admin.settings())
        done(ask(admin))
        for role in ROLES:
            client = AdminClient(wall.connection(role).settings())
            with pytest.raises(KafkaException) as refused:
                done(ask(client))
            assert "AUTHORIZATION_FAILED" in refused.value.args[0].name(), (what, role)
    # The client library makes an empty answer of this refusal.
    assert rights_seen_by(wall.admin) > 40
    assert [rights_seen_by(wall.connection(role)) for role in ROLES] == [0] * len(ROLES)


def rights_seen_by(connection: Connection) -> int:
    client = AdminClient(connection.settings())
    return len(client.describe_acls(provision.any_binding()).result(10))


def done(results: dict[Any, Any]) -> None:
    for result in results.values():
        result.result(10)


def test_a_common_client_is_told_so(wall: RunningStack) -> None:
    """What a user of librdkafka sees: the refusal by name, and no message."""

    def first(role: str) -> Message:
        settings = wall.connection(role).settings(auto_offset_reset="earliest")
        group = next(name for name, owner in GROUPS.items() if owner == role)
        consumer = Consumer({**settings, "group.id": group, "log_level": 0})
        try:
            consumer.subscribe([OWNER["raw"]])
            message = consumer.poll(15)
            assert message is not None
            return message
        finally:
            consumer.close()

    assert first("share").value() == SECRET
    for role in ("trainer", "subscriber"):
        error = first(role).error()
        assert error is not None
        assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
