"""The registry's wall as a table."""

from __future__ import annotations

import pytest

from sluice.stack import security
from sluice.stack.registry_access import ROLES, Side, may_govern, may_read, may_write, side

SIDES = {
    "c.raw.v1-value": Side.OWNER,
    "c.dlq.v1-key": Side.OWNER,
    "c.ledger.v12-value": Side.OWNER,
    "c.source.v1-value": Side.OWNER,
    "c.bounded.v1-value": Side.OWNER,
    "sluice.clock": Side.OWNER,
    "models.c.raw.v1-value": Side.OWNER,  # a contract may be named so
    "c.shared.v1-value": Side.SHARED,
    "a.raw.shared.v1-value": Side.SHARED,
    "models.t.v1-value": Side.MODELS,
    "models.t.chunks.v1-value": Side.MODELS,
    "models.t.acks.v1-key": Side.MODELS,
    "models.t.forecasts.v1-value": Side.MODELS,
    "models.t.record.v1-value": Side.RECORD,
    "c.shared.v1": Side.OTHER,
    "c.shared.v1-value2": Side.OTHER,
    "c.shared.v1-value\n": Side.OTHER,
    "c.shared.vx-value": Side.OTHER,
    "models.v1-value": Side.OTHER,
    "_schemas-value": Side.OTHER,
    "": Side.OTHER,
}


@pytest.mark.parametrize(("subject", "expected"), SIDES.items())
def test_sides(subject: str, expected: Side) -> None:
    assert side(subject) is expected


def test_readers() -> None:
    for subject, expected in SIDES.items():
        readers = {role for role in ROLES if may_read(role, subject)}
        assert (
            readers
            == {
                Side.OWNER: {"admin", "producer", "share"},
                Side.SHARED: {"admin", "producer", "share", "trainer", "subscriber", "ops"},
                Side.MODELS: {"admin", "producer", "share", "trainer", "subscriber", "ops"},
                Side.RECORD: {"admin", "trainer"},
                Side.OTHER: {"admin"},
            }[expected]
        ), subject


def test_writers_can_read_what_they_write_and_subscribers_write_nothing() -> None:
    for subject in SIDES:
        for role in ROLES:
            assert not may_write(role, subject) or may_read(role, subject)
        assert not any(
            may_write(role, subject) for role in ("subscriber", "ops", "registry", "broker", "nobody", "")
        )


def test_only_admin_governs() -> None:
    assert [role for role in ROLES if may_govern(role)] == ["admin"]


def test_the_roles_are_those_of_the_stack() -> None:
    assert set(ROLES) == set(security.ROLES)
