"""Avro records from a contract: the raw event, and the target model that is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.event import AVRO
from schemas.targets import avro_field, avro_type

if TYPE_CHECKING:
    from schemas.contract import Contract

CLOCK_SUBJECT = "sluice.clock"
SHARED_TYPES = {
    "time": "timestamp",
    "count": "int",
    "number": "float",
    "category": "string",
    "pseudonym": "string",
}


def namespace(contract: Contract) -> str:
    """`traffic.detector-counts` -> `traffic.detector_counts`: Avro names have no hyphen."""
    return contract.contract.replace("-", "_")


def raw_schema(contract: Contract) -> dict[str, Any]:
    """Key, time and unit are there in every record; any other field may be null (docs/privacy.md)."""
    sure = {contract.event.key, contract.event.time.field, *contract.privacy.unit}
    fields = [
        avro_field(name, AVRO[field.type] if name in sure else ["null", AVRO[field.type]])
        for name, field in contract.event.fields.items()
    ]
    return {"type": "record", "name": "Raw", "namespace": namespace(contract), "fields": fields}


def privatized_types(contract: Contract) -> dict[str, Any]:
    """Avro type of each field behind the noise, before the mapping; dropped fields are absent."""
    raw = {field["name"]: field["type"] for field in raw_schema(contract)["fields"]}
    types: dict[str, Any] = {}
    for name, rule in contract.privacy.fields.items():
        if rule.kind == "public":
            types[name] = raw[name]
        elif rule.kind != "drop":
            plain = AVRO[SHARED_TYPES[rule.kind]]
            nullable = rule.kind in ("time", "pseudonym") and isinstance(raw[name], list)
            types[name] = ["null", plain] if nullable else plain
    return types


def shared_schema(contract: Contract) -> dict[str, Any]:
    """The target model, with the public part of the contract as the attribute `sluice`."""
    types = privatized_types(contract)
    fields = [
        avro_field(name, avro_type(operator, types, name)) for name, operator in contract.targets.items()
    ]
    return {
        "type": "record",
        "name": contract.shares.model,
        "namespace": namespace(contract),
        "sluice": contract.public(),
        "fields": fields,
    }
