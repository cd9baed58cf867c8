"""The hop from raw to shared without Kafka or Faust: decode -> share -> map -> encode, and dead letters
beside it.

What comes out depends on the log up to each record and on the keys, never on where a batch begins or ends: a
replay produces the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas import dlq
from schemas.codec import Decoded, Decoder, Encoder, Poison
from schemas.contract import Contract
from schemas.mapping import Mapping
from streams.agents.evolving import Evolving
from streams.agents.partition import Counts, PartitionState
from streams.kafka.records import Output, Packed, Records, Result
from streams.privacy.keys import KeyChain
from streams.privacy.plan import Plan
from streams.sharing import RawBatch, Shared, share

DOOMED = "handler-failed"
TOO_LARGE = "shared-record-too-large"
LARGEST = (
    900_000  # a broker takes 1,000,000 bytes in a message unless told otherwise; origin headers come on top
)


@dataclass(frozen=True, slots=True)
class DecodedRecords:
    """The records of one poll as one Arrow RecordBatch of good events, with clocks and poison beside it."""

    records: Records
    decoded: Decoded


class Hop:
    """One contract's hop. Holds no state of any partition."""

    def __init__(
        self,
        contract: Contract,
        plan: Plan,
        keys: KeyChain | None,
        decoder: Decoder | Evolving,
        encoder: Encoder,
        owns: Callable[[int], bool] | None = None,
    ) -> None:
        self._topics = contract.topics
        self._key = contract.event.key
        self._plan = plan
        self._keys = keys
        self._owns = owns
        self._decoder = decoder
        self._mapping = Mapping(contract)
        self._encoder = encoder

    def decode(self, records: Records) -> DecodedRecords:
        """Never raises because of a value, but see Evolving. Needs no state, so it may run ahead of commits."""
        values = records.values
        if not records.doomed:
            return DecodedRecords(records, self._decoder.decode(values))
        doomed = {row for row, offset in enumerate(records.offsets) if offset in records.doomed}
        found = self._decoder.decode([None if row in doomed else value for row, value in enumerate(values)])
        poison = [Poison(bad.row, DOOMED if bad.row in doomed else bad.reason) for bad in found.poison]
        return DecodedRecords(records, Decoded(found.batch, found.rows, found.clocks, poison))

    def share(self, batch: DecodedRecords, state: PartitionState) -> Result:
        """Takes `state` over the batch, ahead of the commit: if that fails, this state is thrown away.

        An exception leaves it as it was.
        """
        records, decoded = batch.records, batch.decoded
        clocks, clock_ms = _clocks(decoded, state.clock_ms)
        shared = share(
            RawBatch(decoded.batch, _pick(records.keys, decoded.rows), clocks, records.partition),
            self._plan,
            self._keys,
            state.ledger,
            self._owns,
        )
        rejected = [(bad.row, bad.reason, "decode") for bad in decoded.poison]
        rejected += [(int(decoded.rows[row]), reason, "share") for row, reason in shared.rejected]
        outputs, large = self._shared(records, shared)
        rejected += [(int(decoded.rows[shared.shared_rows[row]]), TOO_LARGE, "encode") for row in large]
        rejected.sort()
        counts = state.counts + Counts(
            events=decoded.batch.num_rows + len(decoded.poison),
            shared=shared.shared.num_rows - len(large),
            clocks=len(decoded.clocks),
            denied=shared.denied,
            rejected=Counter(reason for _, reason, _ in rejected),
            notes=shared.notes,
        )

        outputs += self._dead_letters(records, rejected)
        changes = state.ledger.records(shared.changes)
        state.ledger.apply(shared.changes)
        state.clock_ms, state.counts = clock_ms, counts
        # Behind the batch's own pages, which may be of the same epochs.
        closed = state.ledger.retire(self._keys.oldest) if self._keys is not None else []
        return Result(outputs, [*changes, *closed, state.record(clock_ms, counts)])

    def _shared(self, records: Records, shared: Shared) -> tuple[list[Output], list[int]]:
        """Keyed by the *shared* value of the key field, in the partition of the raw record. And the rows that
        no broker would take: public text and the mapping make them so, noised values never do.
        """
        columns = shared.shared
        if not columns.num_rows:
            return [], []
        keys: Packed | None = None
        values = Packed.of(self._encoder.frame(self._mapping.apply(columns)))
        sizes = values.lengths
        if self._key in columns.schema.names:
            keys = Packed.of(columns.column(self._key).cast(pa.string()).cast(pa.binary()))
            sizes = sizes + keys.lengths
        large = np.flatnonzero(sizes > LARGEST).tolist()
        if not large:
            return [Output(self._topics.shared, records.partition, values, keys)], []
        kept = np.flatnonzero(sizes <= LARGEST).tolist()
        some = [keys[row] for row in kept] if keys is not None else None
        return [Output(self._topics.shared, records.partition, [values[row] for row in kept], some)], large

    def _dead_letters(self, records: Records, rejected: list[tuple[int, str, str]]) -> list[Output]:
        """Original key, value and headers, behind headers that say where it came from and why it is here.

        A record that would be too large with these loses its own headers, then the end of key or value: a
        letter that no broker takes would come back for ever.
        """
        if not rejected:
            return []
        heads, values, keys = [], [], []
        for row, reason, stage in rejected:
            origin = dlq.headers(records.topic, records.partition, records.offsets[row], reason, stage)
            key, value, own = records.keys[row], records.values[row], records.headers(row)
            if len(key or b"") + len(value or b"") + sum(map(_size, own)) > LARGEST:
                own = []
                key = key and key[:LARGEST]
                value = value and value[: LARGEST - len(key or b"")]
            heads.append([*origin, *own])
            keys.append(key)
            values.append(value)
        return [Output(self._topics.dlq, records.partition, values, keys, heads)]


def _size(header: tuple[str, bytes | None]) -> int:
    """Bytes of a header on the wire, or a few more."""
    name, value = header
    return 4 * len(name) + len(value or b"") + 16


def _clocks(decoded: Decoded, before: int) -> tuple[np.ndarray, int]:
    """For each good row the last clock before it in the log, and the last clock of all."""
    if not decoded.clocks:
        return np.full(len(decoded.rows), before, np.int64), before
    at = np.array([row for row, _ in decoded.clocks], np.int64)
    ms = np.array([before, *(clock for _, clock in decoded.clocks)], np.int64)
    return ms[np.searchsorted(at, decoded.rows)], int(ms[-1])


def _pick(keys: list[bytes | None], rows: np.ndarray) -> list[bytes]:
    """Keys of these rows. A missing key stays None, which `share` rejects."""
    found: list[Any] = list(keys) if len(rows) == len(keys) else [keys[row] for row in rows.tolist()]
    return found
