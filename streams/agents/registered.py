"""A contract's codecs with the ids that the registry gave its schemas."""

from __future__ import annotations

import json
from typing import Any

from schemas.codec import Decoder, Encoder
from schemas.contract import Contract
from schemas.errors import ConfigurationError, RetriableError, WallError
from schemas.records import CLOCK_SUBJECT
from streams.kafka.clients import Connection, registry


def codecs(contract: Contract, connection: Connection) -> tuple[Decoder, Encoder]:
    """Decodes every registered version of the raw schema and clocks, encodes the shared schema.

    A record of any other schema id is poison. Raises ConfigurationError where the contract was not opened or
    differs from what is registered, WallError and RetriableError as the registry answers.
    """
    if not connection.registry_url:
        raise ConfigurationError(
            "No schema registry is known.", "Set SLUICE_REGISTRY_URL, or run `sluice up`."
        )
    from confluent_kafka.schema_registry import Schema, SchemaRegistryError

    subject = f"{contract.topics.raw}-value"
    try:
        with registry(connection) as client:
            current = _id(client.lookup_schema(subject, Schema(json.dumps(contract.raw_schema), "AVRO")))
            schemas: dict[int, Any] = {}
            for version in client.get_versions(subject):
                found = client.get_version(subject, version)
                schemas[_id(found)] = json.loads(str(found.schema and found.schema.schema_str))
            schemas[current] = contract.raw_schema
            subject = CLOCK_SUBJECT
            clock = _id(client.get_latest_version(subject))
            subject = f"{contract.topics.shared}-value"
            shared = _id(client.lookup_schema(subject, Schema(json.dumps(contract.shared_schema), "AVRO")))
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
    return Decoder(schemas, clock, current), Encoder(shared, contract.shared_schema)


def _id(found: Any) -> int:
    return int(found.schema_id)


def _unanswered(connection: Connection, why: str) -> RetriableError:
    return RetriableError(
        f"The schema registry at {connection.registry_url} does not answer ({why}).",
        "Look at `sluice status`, then run the command again.",
    )
