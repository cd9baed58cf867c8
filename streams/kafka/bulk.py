"""librdkafka's batch call, straight from columns: no Python object a record, and one lock for all of them.

Per million records of 40 bytes, transactions included: `Producer.produce` 1.2 CPU s, the client's own `produce_batch`
(a dict a record) 1.2, this .4. `rd_kafka_produce_batch` and its message struct are librdkafka's public C interface.
What is not public is where the Python client keeps its handle: the first word behind the object's head. It is read for
the one release of the client that pyproject.toml allows; with any other, `handle` says None and records go one by one.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import confluent_kafka
import numpy as np
from confluent_kafka import KafkaError, KafkaException, cimpl

from streams.kafka.records import Packed

KNOWN = "2.16.0"
COPY = 2  # RD_KAFKA_MSG_F_COPY: the columns may go once the call returns
MESSAGE = np.dtype(  # rd_kafka_message_t of rdkafka.h, 64 bit
    {
        "names": ["err", "partition", "payload", "len", "key", "key_len"],
        "formats": ["i4", "i4", "u8", "u8", "u8", "u8"],
        "offsets": [0, 16, 24, 32, 40, 48],
        "itemsize": 72,
    }
)


@functools.cache
def _library() -> Any:
    """The librdkafka that the client is linked with, whatever its file is called. Raises OSError or AttributeError
    where it shows no such calls.
    """
    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_topic_new.restype = ctypes.c_void_p
    library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    library.rd_kafka_topic_destroy.restype = None
    library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_produce_batch.restype = ctypes.c_int
    library.rd_kafka_produce_batch.argtypes = [
        ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
    ]  # fmt: skip
    return library


def handle(producer: Any) -> int | None:
    """The `rd_kafka_t *` of a client's Producer, valid as long as the Producer lives; None where it is not known
    how to find it.
    """
    if str(confluent_kafka.__version__) != KNOWN or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        _library()
    except (OSError, AttributeError):  # a client with librdkafka built into it
        return None
    return int(ctypes.c_uint64.from_address(id(producer) + object.__basicsize__).value) or None


def produce(
    handle: int, topic: str, partition: int, values: Packed, keys: Packed | None, first: int = 0
) -> int:
    """Queue the records from row `first` on, in order; the row behind the last one that found room in the queue.

    Raises KafkaException for a record that librdkafka does not take: those before it, and maybe some behind it, are
    queued then, so that the transaction must not be committed. The GIL is free meanwhile.
    """
    if keys is not None and len(keys) != len(values):
        raise ValueError("as many keys as values")
    count = len(values) - first
    messages = np.zeros(count, MESSAGE)
    messages["payload"], messages["len"] = values.addresses(first)
    if keys is not None:
        messages["key"], messages["key_len"] = keys.addresses(first)
    library = _library()
    place = library.rd_kafka_topic_new(handle, topic.encode(), None)  # the client's own, counted once more
    if not place:
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG))
    try:
        queued = library.rd_kafka_produce_batch(place, partition, COPY, messages.ctypes.data, count)
    finally:
        library.rd_kafka_topic_destroy(place)
    if queued == count:
        return first + count
    failed = np.flatnonzero(messages["err"])
    other = failed[messages["err"][failed] != KafkaError._QUEUE_FULL]
    if len(other):
        raise KafkaException(KafkaError(int(messages["err"][other[0]])))
    return first + int(failed[0])
