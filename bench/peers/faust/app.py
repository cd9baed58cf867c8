"""The hop in plain Faust: at-least-once, no ledger, one event at a time.

    python -m bench.peers.faust.app TASK        (with the Python of its own environment)

Tried, in CPU s per million events, one run each on a very busy machine (283 before): its Cython paths, which one has
to ask for, and no log records that nobody reads (aiokafka makes two for each event), 245; no monitor, 212; uvloop; and
events given to the producer itself instead of a topic's `send_soon`, which makes two futures and a task of each: 124 in
all. Also: bytes in and bytes out, a wide stream buffer, `acks=1`, linger, big batches, no web server, no leader
topic. `take` (batches) was not measured.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from typing import Any

import faust
import uvloop  # type: ignore[import-not-found]
from faust.sensors import Monitor, Sensor
from faust.types import StreamT

from bench.peers.hop import function, task


class Silent(Monitor):
    """Faust always has a monitor; this one does nothing for an event."""


def _nothing(*_: Any, **__: Any) -> None:
    return None


for _name in vars(
    Sensor
):  # of events, commits, rebalances; not `on_start` and the like, which are of Service
    if _name.startswith("on_"):
        setattr(Silent, _name, _nothing)


def main() -> None:
    told = task()
    share = function(told)
    client = told["client"]
    os.chdir(told["folder"])  # it makes a folder of its own where it stands
    logging.disable(logging.WARNING)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(uvloop.new_event_loop())
    app: Any = faust.App(
        told["group"],
        broker=f"kafka://{client['bootstrap.servers']}",
        broker_credentials=faust.SASLCredentials(
            username=client["sasl.username"], password=client["sasl.password"], mechanism="SCRAM-SHA-512"
        ),
        cython_optimizations=True,
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        stream_wait_empty=False,
        stream_buffer_maxsize=16_384,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        producer_linger=0.02,
        producer_acks=1,
        producer_max_batch_size=1 << 18,
    )
    app.monitor = Silent()
    target = told["shared"]
    source = app.topic(
        told["raw"], key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes
    )

    @app.agent(source)  # type: ignore[untyped-decorator]  # app is Any
    async def hop(events: StreamT[bytes]) -> None:
        send = app.producer.send
        async for value in events:
            out = share(value)
            key = out[6 : 6 + (out[5] >> 1)]  # the site, as in the key that came
            await send(target, key, out, None, None, None)

    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()


if __name__ == "__main__":
    main()
