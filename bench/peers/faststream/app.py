"""The hop in FastStream on its confluent broker: a batch subscriber, a publisher.

    python -m bench.peers.faststream.app TASK        (with the Python of its own environment)

Tried, in CPU s per million events on a busy machine: `publish` without waiting for the receipt, as here, 18 with a
correlation id that is given (28 where each message draws a UUID); `publish_batch`, a task a message, 34; batches of
1,000 instead of 10,000, 19; receipts for errors only, as here, 18 instead of 21 (three pairs; events/s + 20 %). The
body is neither parsed nor cast, no logger, no middleware. It reads `read_committed` (its own default would show it the
input before the clock starts) and acknowledges first, by the client's automatic commit: the fastest that it offers,
and at most once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

from faststream import FastStream  # type: ignore[import-not-found]
from faststream.confluent import KafkaBroker  # type: ignore[import-not-found]
from faststream.security import SASLScram512  # type: ignore[import-not-found]

from bench.peers.hop import function, task

BATCH = 10_000


def main() -> None:
    told = task()
    share = function(told)
    client = told["client"]
    broker = KafkaBroker(
        client["bootstrap.servers"],
        security=SASLScram512(username=client["sasl.username"], password=client["sasl.password"]),
        apply_types=False,
        logger=None,
        allow_auto_create_topics=False,
        config={
            "linger.ms": 5,
            "delivery.report.only.error": True,  # nobody waits for a receipt
            "check.crcs": False,  # the client's default, and ours; FastStream's is True
            "batch.num.messages": 100_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 256 << 10,
            "queued.max.messages.kbytes": 64 << 10,
            "fetch.queue.backoff.ms": 20,
        },
    )
    target, publish = told["shared"], broker.publish

    async def untouched(message: Any) -> Any:
        return message.raw_message

    @broker.subscriber(  # type: ignore[untyped-decorator]
        told["raw"],
        group_id=told["group"],
        batch=True,
        max_records=BATCH,
        polling_interval=0.005,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 << 20,
        fetch_max_bytes=32 << 20,
        decoder=untouched,
    )
    async def events(messages: tuple[Any, ...]) -> None:
        for message in messages:
            key, value = message.key(), share(message.value())
            await publish(value, target, key=key, no_confirm=True, correlation_id="hop")

    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    asyncio.run(FastStream(broker, logger=None).run(logging.WARNING))


if __name__ == "__main__":
    main()
