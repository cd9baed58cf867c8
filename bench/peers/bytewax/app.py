"""The hop in Bytewax: a dataflow of one worker, with the connectors that it ships.

    python -m bench.peers.bytewax.app TASK        (with the Python of its own environment)

The connectors make an object of each record and flush after each batch; the step between them takes whole batches
(`flat_map_batch`: one call of Python a batch). Tried: batches of 1,000 and 50,000 instead of 10,000 (no clear
difference); an object with slots in place of the frozen `KafkaSinkMessage`, which the sink takes as well (used here);
no statistics; receipts for errors only and one batch fetched ahead (no clear difference). No recovery store, which
would cost, so it promises nothing after a crash. Connectors written by hand would be the confluent-kafka loop that
stands beside it.
"""

from __future__ import annotations

import gc
from typing import Any, ClassVar

import bytewax.operators as op  # type: ignore[import-not-found]
from bytewax.connectors.kafka import KafkaSink, KafkaSource  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import run_main  # type: ignore[import-not-found]

from bench.peers.hop import function, task

BATCH = 10_000


class Output:
    """What the sink asks of a `KafkaSinkMessage`, made in a fifth of the time (.2 us)."""

    __slots__ = ("key", "value")
    topic = None
    headers: ClassVar[list[tuple[str, bytes]]] = []
    timestamp = 0

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value = key, value


def main() -> None:
    told = task()
    share = function(told)
    client = {name: value for name, value in told["client"].items() if name != "bootstrap.servers"}
    brokers = [told["client"]["bootstrap.servers"]]

    def batch(messages: list[Any]) -> list[Output]:
        return [Output(message.key, share(message.value)) for message in messages]

    fetching = {
        "isolation.level": "read_committed",
        "max.partition.fetch.bytes": 4 << 20,
        "fetch.max.bytes": 32 << 20,
        "queued.max.messages.kbytes": 64 << 10,
        "fetch.queue.backoff.ms": 20,
        "statistics.interval.ms": 0,
    }
    sending = {
        "linger.ms": 5,
        "batch.num.messages": 100_000,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 2_000_000,
        "queue.buffering.max.kbytes": 256 << 10,
    }
    flow = Dataflow("hop")
    source = KafkaSource(brokers, [told["raw"]], batch_size=BATCH, add_config={**client, **fetching})
    events = op.input("raw", flow, source)
    shared = op.flat_map_batch("share", events, batch)
    op.output("shared", shared, KafkaSink(brokers, told["shared"], add_config={**client, **sending}))
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    run_main(flow)


if __name__ == "__main__":
    main()
