"""Hostile YAML: it loads, and then everything made of it holds, or it is refused in the project's own words.

Input: the text of a contract, as UTF-8.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import fastavro
import pyarrow as pa
from avro.schema import parse as apache_parse

from schemas import columns
from schemas.codec import Decoder, Encoder
from schemas.contract import Contract, parse
from schemas.errors import ContractError
from schemas.mapping import Mapping
from schemas.rules import MAX_RANGE, Count, Number
from schemas.units import canonical
from tests.fuzz.contracts import ALL, COUNTS, TRIPS
from tests.fuzz.oracles import require

BASE = Path("/somewhere")
TOKEN = re.compile(r"[\w%./:@-]+|[\[\]{}#|&*!>\"',]|\n *")
# Words that mean something somewhere in a contract, and some that mean trouble.
ODD = (
    "", "null", "~", "true", "-1", "0", "1", "1e300", "1e-300", "1e999", "-0.0", ".5", "NaN", ".inf", "[]", "{}",
    "[a]", "{a: b}", "*a", "&a x", "!x y", "!!bool no", "!!binary x", "!!int 9",
    "!!python/object/apply:os.system [x]", "|", ">", "9" * 30, "9" * 5000, "'", '"', '"\\UFFFFFFFF"', '"\\ud800"',
    '"\\0"', "~root/x", "~nobody", "\n", "\t", "---", "...", "%YAML 1.1\n---", "? a", "<<: *a", "public", "drop",
    "pseudonym", "{time: 1ms}", "{time: 5min}", "{count: {min: 0, max: 9, per_unit: 9}}",
    "{count: {min: -5, max: 70000}}", "{number: {min: 0, max: 1, step: 0.5}}",
    "{number: {min: 0, max: 1, step: 1e-12}}", "{category: {members: [a, b], other: c}}", "{constant: 1}",
    "{constant: 99999999999999999999}", "{constant: 1e999}", "{nest: {a: {constant: 1}}}", "{list: {list: at}}",
    "{from: at, scale: 2}", "{from: zone, table: {a: b}, else: c}", "day", "1ms", "1y", "1000y", "12:30",
    "2016-01-01", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00+23:59", "vehicles", "detector", "interval_start",
    "zone", "at", "rider", "string", "int", "float", "bool", "timestamp", "ledger", "assumed", "bounder", "wide",
    "wide_by: 9", "metric: true", "%Y", "%j", "%d/%m/%Y %H:%M", "%Y %Y", "%", "%Q", "iso8601", "epoch_s", "UTC",
    "../../etc/passwd", "Europe/Berlin",
)  # fmt: skip
WORDS = tuple(word.encode() for word in ODD if 0 < len(word) < 40)
TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        contract = parse(text, BASE, "c.yaml")
    except ContractError as refused:
        require(bool(refused.message) and bool(refused.remedy), "a refusal without message or remedy")
        require(refused.message.startswith("c.yaml"), "a refusal that does not say which file")
        require(
            "Traceback" not in str(refused) and " object at 0x" not in str(refused),
            "a refusal in Python's words",
        )
        require(len(str(refused)) < 100_000, "a refusal longer than a book")
        str(refused).encode()
        return
    again = parse(text, BASE, "c.yaml")
    require(again == contract and again.public() == contract.public(), "read twice, it is two contracts")
    _names(contract)
    _budget(contract)
    _schemas(contract)


def _names(contract: Contract) -> None:
    for topic in contract.topics.model_dump().values():
        require(bool(TOPIC.fullmatch(topic)), "a topic that Kafka does not take")
    require(contract.source.path.is_absolute(), "a source without an absolute path")
    require(
        [field.id for field in contract.event.fields.values()] == [*range(1, len(contract.event.fields) + 1)],
        "ids",
    )
    require(len(contract.terms_digest) == 64, "a digest of another length")
    require(all(isinstance(warning, str) for warning in contract.warnings), "a warning that is no text")


def _budget(contract: Contract) -> None:
    """What all of a unit's records in an epoch may spend together never exceeds epsilon."""
    privacy = contract.privacy
    if contract.mode == "open":
        require(not privacy.private_fields, "mode open that noises")
        return
    spent = sum(rule.nano_epsilon for rule in privacy.private_fields.values()) * privacy.contribution.max
    require(0 < Decimal(spent) <= privacy.epsilon * 10**9, "more is spent than promised, or nothing")
    for rule in privacy.private_fields.values():
        require(rule.nano_epsilon >= 1, "a field without noise")
        if isinstance(rule, Count | Number):
            require(1 <= rule.sensitivity <= rule.range, "a sensitivity outside the range")
            require(rule.range + rule.margin <= MAX_RANGE, "a table that is not proved")
            require(0 <= rule.default_index <= rule.range, "a default outside the range")
            require(rule.bounds[0] < rule.bounds[1], "bounds that are none")


def _schemas(contract: Contract) -> None:
    """What is generated is Avro for two libraries, and a codec and a mapping can be made of it."""
    public = json.loads(json.dumps(contract.public(), allow_nan=False))
    require(public == contract.public(), "a public part that JSON does not keep")
    canonical(contract.public())
    dropped = [name for name, rule in contract.privacy.fields.items() if rule.kind == "drop"]
    require(not set(dropped) & set(public["fields"]), "a dropped field's name is public")
    for schema in (contract.raw_schema, contract.shared_schema):
        text = json.dumps(schema, allow_nan=False)
        require(json.loads(text) == schema, "a schema that JSON does not keep")
        fastavro.parse_schema(json.loads(text))
        apache_parse(text)
        Encoder(1, schema)
    decoder, mapping = Decoder({1: contract.raw_schema}), Mapping(contract)
    body = io.BytesIO()
    raw = fastavro.parse_schema(columns.plain(contract.raw_schema))
    fastavro.schemaless_writer(
        body, raw, {field["name"]: _any(field["type"]) for field in contract.raw_schema["fields"]}
    )
    require(len(decoder.decode([b"\0\0\0\0\1" + body.getvalue()]).rows) == 1, "its own event does not decode")
    rows = pa.RecordBatch.from_arrays(
        [pa.array([_any_arrow(type_)]).cast(type_) for type_ in mapping._types.values()],
        list(mapping._types),
    )
    shared = mapping.apply(rows)
    values = Encoder(1, mapping.avro_schema).encode(shared)
    require(len(values) == shared.num_rows == 1, "its own shared record does not encode")


def _any(type_: Any) -> Any:
    kind, _ = columns.nullable(type_)
    kind = kind["type"] if isinstance(kind, dict) else kind
    return {"string": "x", "long": 1, "double": 0.5, "boolean": True}[kind]


def _any_arrow(type_: Any) -> Any:
    return "x" if pa.types.is_string(type_) else True if pa.types.is_boolean(type_) else 1


def mutate(data: bytes, rng: Random) -> bytes:
    """Words for words, lines moved or gone: most of what comes out is YAML still."""
    text = data.decode("utf-8", "replace")
    for _ in range(rng.randint(1, 4)):
        spans = [found.span() for found in TOKEN.finditer(text)] or [(0, len(text))]
        start, end = rng.choice(spans)
        match rng.randrange(6):
            case 0:
                text = text[:start] + rng.choice(ODD) + text[end:]
            case 1:
                other = rng.choice(spans)
                text = text[:start] + text[other[0] : other[1]] + text[end:]
            case 2:
                text = (
                    text[:end]
                    + rng.choice((" ", ": ", ", ", "\n", "\n  ", ""))
                    + rng.choice(ODD)
                    + text[end:]
                )
            case 3:
                text = text[:start] + text[end:]
            case 4:
                lines = text.split("\n")
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
                text = "\n".join(lines)
            case _:
                giver = rng.choice((COUNTS, TRIPS))
                line = rng.choice(giver.split("\n"))
                lines = text.split("\n")
                lines[rng.randrange(len(lines))] = line
                text = "\n".join(lines)
    return text.encode("utf-8", "replace")


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, text in ALL.items():
        yield name, "\n".join(line.partition(" #")[0].rstrip() for line in text.split("\n")).encode()
