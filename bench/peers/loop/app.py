"""The hop as a loop on confluent-kafka: record by record, exactly-once.

    python -m bench.peers.loop.app TASK

One transaction holds what one `consume` brings, as ours does. Tried, on a busy machine: batches of 2,000, 3,000 and
5,000 (twice the broker's work), 50,000 (half as much CPU again: it leaves the cache), against 10,000. A commit in a
thread of its own while the next batch is computed (3.6 CPU s per million instead of 3.4), and one batch fetched ahead
at most (3.8) brought nothing (two runs each). The settings are those of our own clients on both sides; a transaction
of its own for each record would commit some hundred a second.
"""

from __future__ import annotations

import gc
import signal
import sys
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.peers.hop import function, task

BATCH = 10_000


def main() -> None:
    told = task()
    share = function(told)
    consumer = Consumer(
        {
            **told["client"],
            "group.id": told["group"],
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "max.partition.fetch.bytes": 4 << 20,
            "fetch.max.bytes": 32 << 20,
            "queued.max.messages.kbytes": 8 << 10,
            "fetch.queue.backoff.ms": 20,
        }
    )
    producer = Producer(
        {
            **told["client"],
            "transactional.id": told["group"],
            "linger.ms": 5,
            "batch.num.messages": 100_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 256 << 10,
            "delivery.report.only.error": True,
        }
    )
    producer.init_transactions(30)
    consumer.subscribe([told["raw"]])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    target, produce = told["shared"], producer.produce
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        producer.begin_transaction()
        after: dict[int, int] = {}
        message: Any
        for message in (first, *consumer.consume(BATCH - 1, 0.005)):
            if message.error() is not None:
                raise SystemExit(message.error().str())
            produce(target, share(message.value()), message.key(), message.partition())
            after[message.partition()] = message.offset() + 1
        offsets = [TopicPartition(told["raw"], partition, offset) for partition, offset in after.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)


if __name__ == "__main__":
    main()
