"""The share agent: raw records in, privatized ones out, one transaction per batch.

The agent works on whole record batches. One event at a time, Faust does 4,100 events/s for decode, noise,
encode and send (3,400 with its `exactly_once`, which has open correctness bugs); a Faust channel carries
52,000 *batches*/s. So Faust keeps the programming model, supervision and life cycle, and `pipe.py` makes one
Arrow RecordBatch per poll.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from faust.types import StreamT

from schemas.contract import Contract
from schemas.mapping import iso
from streams.agents.app import App
from streams.agents.closing import Closing
from streams.agents.evolving import Evolving
from streams.agents.hop import DecodedRecords, Hop
from streams.agents.partition import Counts, PartitionState
from streams.agents.pipe import Batch, Pipe
from streams.agents.registered import codecs
from streams.kafka.clients import Connection
from streams.kafka.records import NOTHING, Records, Result, Source
from streams.kafka.transaction import DEFAULTS, TransactionalPipe, Tuning
from streams.privacy.clocks import Clocks
from streams.privacy.keys import KeyChain
from streams.privacy.plan import Plan
from streams.privacy.versions import Versions

log = structlog.get_logger("sluice.share")


class ShareAgent:
    """One worker of a contract's share group: an app, its pipe, and the state of its partitions."""

    def __init__(
        self,
        contract: Contract,
        connection: Connection,
        home: Path,
        identity: str,
        now_ms: int,
        tuning: Tuning = DEFAULTS,
    ) -> None:
        self.states: dict[Source, PartitionState] = {}
        self._found: dict[Source, int] = {}  # events that were counted before this process dealt with any
        plan, codec = Plan.of(contract), codecs(contract, connection)
        self._keys: KeyChain | None = None
        self._closing: Closing | None = None
        owns = None
        if contract.mode != "open":
            began = time.monotonic()
            self._keys = KeyChain.open(home, contract, now_ms)
            versions = Versions.open(home, contract, plan)
            owns = versions.own
            if versions.begins_ms is not None:
                log.info(
                    "epochs before belong to another version of this contract", begins=iso(versions.begins_ms)
                )
            self._closing = Closing(
                Clocks.open(home, contract, now_ms),
                self._keys,
                lambda: now_ms + int((time.monotonic() - began) * 1000),
            )
        self._hop = hop = Hop(contract, plan, self._keys, *codec, owns)

        self.app = app = App(f"share.{contract.contract}")
        channel = app.channel(maxsize=2)

        @app.agent(channel)
        async def share_batches(batches: StreamT[Batch[DecodedRecords]]) -> None:
            async for batch in batches:
                try:
                    batch.finish(self.share(batch.records, batch.content))
                except Exception as error:
                    batch.fail(error)

        self.kafka = TransactionalPipe(
            connection,
            group=f"share.{contract.contract}",
            topics=[contract.topics.raw],
            transactional_id=identity,
            changelog=lambda source: Source(contract.topics.ledger, source.partition),
            restore=self._restore,
            tuning=tuning,
        )
        if isinstance(codec[0], Evolving):
            codec[0].stopping = self.kafka.session.stopping.is_set

        async def deliver(batch: Batch[DecodedRecords]) -> None:
            await channel.send(value=batch)

        @app.service
        class SharePipe(Pipe[DecodedRecords]):
            def __init__(service, **more: Any) -> None:  # noqa: N805  # self is the agent's owner
                super().__init__(self.kafka, hop.decode, deliver, **more)
                self.pipe = service

        self.pipe: Pipe[DecodedRecords]

    def share(self, records: Records, content: DecodedRecords) -> Result:
        """One batch, on the state of its partition."""
        state = self.states[records.source]
        if records.epoch != self.kafka.session.epoch:
            return NOTHING  # dropped at its commit; `state` may be restored by now, and must not take it over
        if self._closing is None:
            return self._hop.share(content, state)
        self._closing.look(source.partition for source in self.kafka.assigned)
        result = self._hop.share(content, state)
        return replace(result, apply=partial(self._closing.committed, records.partition, state.clock_ms))

    async def ended(self) -> None:
        """See `Pipe.ended`."""
        await self.pipe.ended()

    @property
    def counts(self) -> Counts:
        """Of all partitions of this worker, since each partition's beginning. Owner's side only."""
        return sum((state.counts for state in list(self.states.values())), Counts())

    @property
    def events_here(self) -> int:
        """Events that this process has dealt with: `counts` without what it found when it took a partition."""
        return self.counts.events - sum(self._found.values())

    def _restore(self, sources: Sequence[Source], changelog: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Each raw partition has a ledger partition of its own. Raises KeyStoreError where keys and ledger
        differ.
        """
        (source,) = sources
        state = PartitionState.restore(changelog)
        if self._keys is not None:
            state.ledger.verify(self._keys)
        before = self.states.get(source)  # from there on, another worker's events or our own, taken back
        gained = state.counts.events - (before.counts.events if before else 0)
        self._found[source] = self._found.get(source, 0) + max(0, gained)
        self.states[source] = state
        if self._closing is not None:
            self._closing.committed(source.partition, state.clock_ms)
