"""A worker whose contract is older than the records: what it reads, what it waits for, where it stops."""

from __future__ import annotations

from typing import Any

import pytest

from producers.encode import encoder
from schemas.errors import ConfigurationError, RetriableError
from streams.agents import evolving
from streams.agents.evolving import Evolving, unreadable

KEY = {"name": "site", "type": "string"}
COUNT = {"name": "count", "type": ["null", "long"], "default": None}
NOTE = {"name": "note", "type": ["null", "string"], "default": None}
CLOCK = 1


def schema(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Raw", "namespace": "t", "fields": list(fields)}


OLD, NEW, LATER, BROKEN = schema(KEY, COUNT), schema(KEY, COUNT, NOTE), schema(KEY, NOTE), schema(COUNT, NOTE)


class Registry:
    """Versions by id. `away`: so often it does not answer."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, dict[str, Any]]] = {10: (1, OLD)}
        self.away = self.asked = 0

    def __call__(self) -> dict[int, tuple[int, dict[str, Any]]]:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise RetriableError("No answer.", "Wait.")
        return dict(self.known)


def decoder(registry: Registry, stopping: bool = False) -> Evolving:
    found = Evolving("t.raw.v1", registry, CLOCK, 10)
    found.stopping = lambda: stopping
    return found


def test_later_versions_are_read_as_their_records_come() -> None:
    registry = Registry()
    found = decoder(registry)
    first = encoder(10, OLD)({"site": "a", "count": 1})
    registry.known |= {11: (2, NEW), 12: (3, LATER)}
    mixed = [
        first,
        encoder(11, NEW)({"site": "b", "count": 2, "note": "new"}),
        encoder(99, OLD)({"site": "x", "count": 9}),
        encoder(12, LATER)({"site": "c", "note": None}),
        first,
    ]
    asked = registry.asked
    decoded = found.decode(mixed)
    assert decoded.batch.to_pylist() == [
        {"site": "a", "count": 1},
        {"site": "b", "count": 2},
        {"site": "c", "count": None},
        {"site": "a", "count": 1},
    ]
    assert decoded.rows.tolist() == [0, 1, 3, 4]
    assert [(each.row, each.reason) for each in decoded.poison] == [(2, "unknown-schema-id")]
    assert registry.asked == asked + 1
    assert found.decode(mixed).rows.tolist() == [0, 1, 3, 4]
    assert registry.asked == asked + 1  # an id of nobody is asked for once


def test_a_registry_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolving, "AGAIN_SECONDS", 0.01)
    registry = Registry()
    found = decoder(registry)
    registry.known[11] = (2, NEW)
    registry.away = 5
    new = encoder(11, NEW)({"site": "b", "count": 2, "note": "new"})
    assert found.decode([new]).batch.to_pylist() == [{"site": "b", "count": 2}]
    found = decoder(registry, stopping=True)
    registry.away = 1
    with pytest.raises(RetriableError):
        found.decode([new])


def test_a_version_that_cannot_be_read_stops_the_worker_and_is_no_poison() -> None:
    registry = Registry()
    found = decoder(registry)
    registry.known[11] = (2, BROKEN)
    with pytest.raises(ConfigurationError, match=r"version 2.*field 'site' is missing") as error:
        found.decode([encoder(11, BROKEN)({"count": 1, "note": None})])
    assert "newest file" in error.value.remedy


@pytest.mark.parametrize(
    ("writer", "reader", "field"),
    [
        (OLD, OLD, None),
        (NEW, OLD, None),
        (OLD, NEW, None),
        (schema({"name": "site", "type": "int"}), schema({"name": "site", "type": "long"}), None),
        (schema({"name": "site", "type": "long"}), schema({"name": "site", "type": "double"}), None),
        (schema({"name": "site", "type": "double"}), schema({"name": "site", "type": "long"}), "site"),
        (schema({"name": "site", "type": ["null", "string"]}), schema(KEY), "site"),
        (schema(KEY), schema({"name": "site", "type": ["null", "string"]}), None),
        (schema(KEY), schema(KEY, {"name": "more", "type": "string"}), "more"),
        (
            schema({"name": "site", "type": {"type": "long", "logicalType": "timestamp-millis"}}),
            schema({"name": "site", "type": "string"}),
            "site",
        ),
    ],
)
def test_unreadable(writer: Any, reader: Any, field: str | None) -> None:
    assert unreadable(writer, reader) == field
