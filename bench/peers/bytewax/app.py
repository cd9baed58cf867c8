"""The hop in Bytewax: a dataflow of one worker, with the connectors that it ships.

python -m bench.peers.bytewax.app TASK        (with the Python of its own environment)
"""

from __future__ import annotations

import gc
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import run_main  # type: ignore[import-not-found]

from bench.peers.hop import function, task

BATCH = 10_000


def main() -> None:
    told = task()
    share = function(told)
    client = {name: value for name, value in told["client"].items() if name != "bootstrap.servers"}
    brokers = [told["client"]["bootstrap.servers"]]

    def batch(messages: list[Any]) -> list[Any]:
        return [KafkaSinkMessage(message.key, share(message.value)) for message in messages]

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
