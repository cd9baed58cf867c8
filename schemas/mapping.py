"""Privatized columns to the target model's columns, and the target model's JSON from one record.

The shared Avro *is* the target model; JSON is a view of it. Nothing here can add data: an operator reads
privatized fields or a constant of the contract.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import columns, records
from schemas.contract import Contract
from schemas.targets import Constant, ListOfOne, Nest, Operator, Rename, Scale, Table, Template

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999


class Mapping:
    """The `shares:` section at work. Pure: same columns in, same columns out."""

    def __init__(self, contract: Contract) -> None:
        self.avro_schema: dict[str, Any] = contract.shared_schema
        self.schema: pa.Schema = columns.arrow_schema(self.avro_schema)
        self.model = contract.shares.model if contract.shares.as_ != "plain" else None
        self._targets = contract.targets
        self._types = {
            name: columns.arrow_type(type_) for name, type_ in records.privatized_types(contract).items()
        }

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Target columns, one row for each row of `batch`, whose columns are the privatized fields by name.

        Types in: public as raw; time as timestamp (or int64) of UTC milliseconds; count int64; number
        float64; category and pseudonym string. Columns that are no shared field are ignored.
        """
        given = {name: batch.column(name).cast(type_) for name, type_ in self._types.items()}
        made = [
            self._make(operator, given, batch.num_rows).cast(field.type)
            for operator, field in zip(self._targets.values(), self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(made, schema=self.schema)

    def json_view(self, record: dict[str, Any]) -> dict[str, Any]:
        """One decoded record as NGSI JSON: `type` added, times in ISO 8601 UTC, missing attributes left
        out."""
        view: dict[str, Any] = _view(self.avro_schema, record)
        if self.model is None or "type" in view:
            return view
        head = {"id": view.pop("id")} if "id" in view else {}
        return {**head, "type": self.model, **view}

    def _make(self, operator: Operator, given: dict[str, pa.Array], rows: int) -> pa.Array:
        if isinstance(operator, Rename):
            return given[operator.field]
        if isinstance(operator, Scale):
            # Not safe: a whole number beyond 2^53 becomes the nearest double, and never an error.
            numbers = given[operator.field].cast(pa.float64(), safe=False)
            return pc.add(pc.multiply(numbers, operator.scale), operator.offset)
        if isinstance(operator, Table):
            words = given[operator.field].cast(pa.string())
            index = pc.index_in(words, pa.array(list(operator.table), pa.string()))
            known = pa.array(list(operator.table.values()), pa.string()).take(index)
            return pc.if_else(pc.is_null(words), None, pc.fill_null(known, operator.otherwise))
        if isinstance(operator, Constant):
            return pa.repeat(pa.scalar(operator.constant), rows)
        if isinstance(operator, Template):
            return _fill(operator, given, rows)
        if isinstance(operator, Nest):
            inner = [self._make(op, given, rows) for op in operator.nest.values()]
            return pa.StructArray.from_arrays(inner, list(operator.nest))
        assert isinstance(operator, ListOfOne)
        return pa.ListArray.from_arrays(
            np.arange(rows + 1, dtype=np.int32), self._make(operator.item, given, rows)
        )


def _fill(template: Template, given: dict[str, pa.Array], rows: int) -> pa.Array:
    """Text with the fields in their holes; a missing value leaves its hole empty."""
    parts: list[pa.Array | pa.Scalar] = []
    for at, piece in enumerate(template.pieces):
        parts.append(_text(given[piece]) if at % 2 else pa.scalar(piece))
    if len(parts) == 1:
        return pa.repeat(parts[0], rows)
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def _text(column: pa.Array) -> pa.Array:
    """Words of a column. Times repeat within a batch, and formatting one costs 1 us: each is written once."""
    if not pa.types.is_timestamp(column.type):
        return column.cast(pa.string())
    coded = column.dictionary_encode()
    words = [iso(ms) for ms in coded.dictionary.cast(pa.int64()).to_pylist()]
    return pa.array(words, pa.string()).take(coded.indices)


def iso(ms: int) -> str:
    """ISO 8601 in UTC: 1451894400000 -> `2016-01-04T08:00:00Z`; milliseconds only where there are any.

    Times outside the years 1 to 9999 are written as the nearest that ISO 8601 can say.
    """
    ms = min(max(ms, FIRST_MS), LAST_MS)
    moment = datetime.fromtimestamp(ms // 1000, UTC).replace(tzinfo=None, microsecond=ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds") + "Z"


def _view(type_: Any, value: Any) -> Any:
    """A decoded value as JSON sees it. Timestamps may come as integers (ms) or as datetimes (naive ones
    are UTC)."""
    type_, _ = columns.nullable(type_)
    if isinstance(value, datetime):
        value = round(value.replace(tzinfo=value.tzinfo or UTC).timestamp() * 1000)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    if not isinstance(type_, dict) or value is None:
        return value
    if type_.get("logicalType") == "timestamp-millis":
        return iso(value)
    if type_["type"] == "record":
        inner = {field["name"]: _view(field["type"], value[field["name"]]) for field in type_["fields"]}
        return {name: part for name, part in inner.items() if part is not None}
    if type_["type"] == "array":
        return [_view(type_["items"], item) for item in value]
    return value
