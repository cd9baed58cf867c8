"""The share agent: raw records in, privatized ones out, one transaction per batch.

The agent works on whole record batches. One event at a time, Faust does 4,100 events/s for decode, noise,
encode and send (3,400 with its `exactly_once`, which has open correctness bugs); a Faust channel carries
52,000 *batches*/s. So Faust keeps the programming model, supervision and life cycle, and `pipe.py` makes one
Arrow RecordBatch per poll.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from faust.types import StreamT

from schemas.contract import Contract
from streams.agents.app import App
from streams.agents.hop import DecodedRecords, Hop
from streams.agents.partition import Counts, PartitionState
from streams.agents.pipe import Batch, Pipe
from streams.agents.registered import codecs
from streams.kafka.clients import Connection
from streams.kafka.records import Source
from streams.kafka.transaction import DEFAULTS, TransactionalPipe, Tuning
from streams.privacy.keys import KeyChain
from streams.privacy.plan import Plan


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
        self._keys = KeyChain.open(home, contract, now_ms) if contract.mode != "open" else None
        hop = Hop(contract, Plan.of(contract), self._keys, *codecs(contract, connection))

        self.app = app = App(f"share.{contract.contract}")
        channel = app.channel(maxsize=2)

        @app.agent(channel)
        async def share_batches(batches: StreamT[Batch[DecodedRecords]]) -> None:
            async for batch in batches:
                try:
                    state = self.states[batch.records.source]
                    batch.finish(hop.share(batch.content, state))
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

        async def deliver(batch: Batch[DecodedRecords]) -> None:
            await channel.send(value=batch)

        @app.service
        class SharePipe(Pipe[DecodedRecords]):
            def __init__(service, **more: Any) -> None:  # noqa: N805  # self is the agent's owner
                super().__init__(self.kafka, hop.decode, deliver, **more)
                self.pipe = service

        self.pipe: Pipe[DecodedRecords]

    async def ended(self) -> None:
        """See `Pipe.ended`."""
        await self.pipe.ended()

    @property
    def counts(self) -> Counts:
        """Of all partitions of this worker, since each partition's beginning. Owner's side only."""
        return sum((state.counts for state in list(self.states.values())), Counts())

    def _restore(self, sources: Sequence[Source], changelog: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Each raw partition has a ledger partition of its own. Raises KeyStoreError where keys and ledger
        differ.
        """
        (source,) = sources
        state = PartitionState.restore(changelog)
        if self._keys is not None:
            state.ledger.verify(self._keys)
        self.states[source] = state
