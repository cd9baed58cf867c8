"""A plain Faust app for the same hop, with fastavro as users have it: at-least-once, no ledger, one event at a time.

    python -m bench.plain_faust BOOTSTRAP USER PASSWORD_FILE RAW SHARED RAW_SCHEMA SHARED_SCHEMA SCHEMA_ID

What was tried to make it fast: raw serializers and no keys to decode (+40 %), buffered `send_soon` instead of awaited
`send` (+30 %), a wide stream buffer, `acks=1`, linger and big batches, no web server, no leader topic, no sensors.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

import fastavro
import faust
from faust.types import StreamT


def main() -> None:
    bootstrap, user, password_file, raw, shared, raw_schema, shared_schema, schema_id = sys.argv[1:]
    reader = fastavro.parse_schema(json.loads(Path(raw_schema).read_text()))
    writer = fastavro.parse_schema(json.loads(Path(shared_schema).read_text()))
    frame = struct.pack(">bI", 0, int(schema_id))
    app: Any = faust.App(
        "plain-faust",
        broker=f"kafka://{bootstrap}",
        broker_credentials=faust.SASLCredentials(
            username=user, password=Path(password_file).read_text().strip(), mechanism="SCRAM-SHA-512"
        ),
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        stream_wait_empty=False,
        stream_buffer_maxsize=16_384,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        producer_linger_ms=20,
        producer_acks=1,
        producer_max_batch_size=1 << 18,
    )
    source = app.topic(raw, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    target = app.topic(shared, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    noise = [round(random.expovariate(1.0) - random.expovariate(1.0)) for _ in range(1 << 16)]

    @app.agent(source)  # type: ignore[untyped-decorator]  # app is Any
    async def share(events: StreamT[bytes]) -> None:
        read, write, draw = fastavro.schemaless_reader, fastavro.schemaless_writer, random.getrandbits
        async for value in events:
            event: Any = read(io.BytesIO(value[5:]), reader, None)
            amount = min(max(event["amount"] + noise[draw(16)], 0), 1000)
            out = io.BytesIO()
            out.write(frame)
            at = event["at"]
            write(out, writer, {"site": event["site"], "dateObserved": at, "intensity": float(amount)})
            target.send_soon(key=event["site"].encode(), value=out.getvalue())

    worker = faust.Worker(app, loglevel="ERROR")
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
