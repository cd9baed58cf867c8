"""The hop in Quix Streams: one record at a time through a StreamingDataFrame.

    python -m bench.peers.quix.app TASK        (with the Python of its own environment)

Tried, at 100,000 events on a busy machine: at least once, as here, 40,000 to 52,000 events/s; exactly once 26,000, and
32,000 with a commit every half second (CPU is the same, the last commit is waited for). Bytes in and bytes out (no
serializer of its own), no check of the brokers after each record, fetch sizes, linger and queues as ours, the garbage
collector kept from looking at what stays. Receipts for errors only, shorter queues, no statistics: no clear difference.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.kafka.configuration import ConnectionConfig  # type: ignore[import-not-found]

from bench.peers.hop import function, task


def main() -> None:
    told = task()
    share = function(told)
    client = told["client"]
    app = Application(
        broker_address=ConnectionConfig(
            bootstrap_servers=client["bootstrap.servers"],
            security_protocol=client["security.protocol"],
            sasl_mechanism=client["sasl.mechanism"],
            sasl_username=client["sasl.username"],
            sasl_password=client["sasl.password"],
        ),
        consumer_group=told["group"],
        auto_offset_reset="earliest",
        auto_create_topics=False,
        processing_guarantee="at-least-once",
        commit_interval=5.0,
        broker_availability_timeout=0,
        loglevel=logging.WARNING,
        state_dir=told["folder"],
        consumer_extra_config={
            "isolation.level": "read_committed",
            "max.partition.fetch.bytes": 4 << 20,
            "fetch.max.bytes": 32 << 20,
            "queued.max.messages.kbytes": 64 << 10,
            "fetch.queue.backoff.ms": 20,
        },
        producer_extra_config={
            "linger.ms": 50,
            "batch.num.messages": 100_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 256 << 10,
        },
    )
    plain: dict[str, Any] = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
    written: dict[str, Any] = {"key_serializer": "bytes", "value_serializer": "bytes"}
    events = app.dataframe(app.topic(told["raw"], **plain))
    events.apply(share).to_topic(app.topic(told["shared"], **written))
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    app.run()


if __name__ == "__main__":
    main()
