"""Events and clocks to bytes: Confluent's frame (a zero byte, the schema's id as u32) and Avro.

fastavro row by row, not the columnar codec: a producer of CSV or JSON lines then needs no pyarrow (60 MB of
memory).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro

from producers.positions import OPEN_IT
from schemas.contract import Contract
from schemas.errors import ConfigurationError, RetriableError, WallError
from schemas.records import CLOCK_SUBJECT
from streams.kafka.clients import Connection, registry

Encode = Callable[[dict[str, Any]], bytes]


def encoder(schema_id: int, schema: dict[str, Any]) -> Encode:
    """A function from a record that fits the schema to its framed bytes."""
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    frame = b"\x00" + schema_id.to_bytes(4, "big")
    write = fastavro.schemaless_writer

    def encode(record: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        out.write(frame)
        write(out, parsed, record)
        return out.getvalue()

    return encode


def encoders(contract: Contract, connection: Connection) -> tuple[Encode, Encode]:
    """For events and for clock records, with the ids that the registry gave their schemas.

    Raises ConfigurationError where the contract was not opened or its raw schema differs from the registered
    one.
    """
    from confluent_kafka.schema_registry import Schema, SchemaRegistryError

    if not connection.registry_url:
        raise ConfigurationError(
            "No schema registry is known.", "Set SLUICE_REGISTRY_URL, or run `sluice up`."
        )
    subject = f"{contract.topics.raw}-value"
    try:
        with registry(connection) as client:
            raw = client.lookup_schema(subject, Schema(json.dumps(contract.raw_schema), "AVRO"))
            subject = CLOCK_SUBJECT
            clock = client.get_latest_version(subject)
    except SchemaRegistryError as problem:
        if problem.http_status_code in (401, 403):
            raise WallError(
                f"The registry refused {connection.principal!r} to read the subject {subject}.",
                "Publish as `producer`, with the password in $SLUICE_HOME/secrets/producer.",
            ) from None
        if problem.http_status_code == 404:
            raise ConfigurationError(
                f"The registry does not have this contract's schema under {subject}.",
                OPEN_IT,
            ) from None
        raise _unanswered(connection, f"status {problem.http_status_code}") from None
    except Exception as problem:  # the client lets its HTTP library's own kinds through
        raise _unanswered(connection, type(problem).__name__) from None
    assert raw.schema_id is not None
    assert clock.schema_id is not None
    assert clock.schema is not None
    return (
        encoder(raw.schema_id, contract.raw_schema),
        encoder(clock.schema_id, json.loads(str(clock.schema.schema_str))),
    )


def _unanswered(connection: Connection, why: str) -> RetriableError:
    return RetriableError(
        f"The schema registry at {connection.registry_url} does not answer ({why}).",
        "Look at `sluice status`, then run the command again.",
    )
