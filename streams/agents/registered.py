"""A contract's codecs with the ids that the registry gave its schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schemas.codec import Encoder
from schemas.contract import Contract
from schemas.errors import ConfigurationError, RetriableError, WallError
from schemas.records import CLOCK_SUBJECT
from streams.agents.evolving import Evolving, Versions
from streams.kafka.clients import Connection, registry


def codecs(contract: Contract, connection: Connection) -> tuple[Evolving, Encoder]:
    """Decodes every registered version of the raw schema, later ones too, and clocks; encodes the shared schema.

    A record of any other schema id is poison. Raises ConfigurationError where the contract was not opened or
    differs from what is registered, WallError and RetriableError as the registry answers.
    """
    if not connection.registry_url:
        raise ConfigurationError(
            "No schema registry is known.", "Set SLUICE_REGISTRY_URL, or run `sluice up`."
        )
    raw, shared = f"{contract.topics.raw}-value", f"{contract.topics.shared}-value"

    def versions() -> Versions:
        with _asking(connection, raw) as client:
            found = [client.get_version(raw, number) for number in client.get_versions(raw)]
        read = {_id(each): (int(each.version), _parsed(each)) for each in found}
        return read | {current: (own, contract.raw_schema)}

    with _asking(connection, raw) as client:
        mine = client.lookup_schema(raw, _schema(contract.raw_schema))
        current, own = _id(mine), int(mine.version)
    with _asking(connection, CLOCK_SUBJECT) as client:
        clock = _id(client.get_latest_version(CLOCK_SUBJECT))
    with _asking(connection, shared) as client:
        target = _id(client.lookup_schema(shared, _schema(contract.shared_schema)))
    decoder = Evolving(contract.topics.raw, versions, clock, current)
    return decoder, Encoder(target, contract.shared_schema)


@contextmanager
def _asking(connection: Connection, subject: str) -> Iterator[Any]:
    """A client of the registry, whose errors are ours."""
    from confluent_kafka.schema_registry import SchemaRegistryError

    try:
        with registry(connection) as client:
            yield client
    except SchemaRegistryError as problem:
        if problem.http_status_code in (401, 403):
            raise WallError(
                f"The registry refused {connection.principal!r} to read the subject {subject}.",
                "Run as `share`, with the password in $SLUICE_HOME/secrets/share.",
            ) from None
        if problem.http_status_code == 404:
            raise ConfigurationError(
                f"The registry does not have this contract's schema under {subject}.",
                "Open the contract as admin: `sluice publish` does it where the admin's secret is.",
            ) from None
        raise _unanswered(connection, f"status {problem.http_status_code}") from None
    except Exception as problem:  # the client lets its HTTP library's own kinds through
        raise _unanswered(connection, type(problem).__name__) from None


def _schema(schema: dict[str, Any]) -> Any:
    from confluent_kafka.schema_registry import Schema

    return Schema(json.dumps(schema), "AVRO")


def _parsed(found: Any) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(str(found.schema.schema_str))
    return schema


def _id(found: Any) -> int:
    return int(found.schema_id)


def _unanswered(connection: Connection, why: str) -> RetriableError:
    return RetriableError(
        f"The schema registry at {connection.registry_url} does not answer ({why}).",
        "Look at `sluice status`, then run the command again.",
    )
