"""What goes through a transaction: the records of one poll, and what was made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, overload

import numpy as np

Headers = Sequence[tuple[str, bytes | None]]


class Source(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Message(Protocol):
    """The part of `confluent_kafka.Message` that is read here."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> Any: ...


class Records:
    """The records of one partition from one poll, in the order of the log; never empty.

    `start` is the expected position these records begin at and `next` the one after them: the consumer
    thread's own count, so that control records and aborted ones, which leave gaps in `offsets`, do not
    matter. `doomed` holds offsets that made their handler fail twice: they must not be processed again but go
    to the dead-letter topic. The lists are made when they are first asked for (one of a million keys costs 40
    ms of CPU).
    """

    def __init__(
        self,
        source: Source,
        messages: Sequence[Message],
        *,
        start: int,
        next: int,
        epoch: int = 0,
        group_metadata: Any = None,
        doomed: frozenset[int] = frozenset(),
    ) -> None:
        self.source = source
        self.messages = messages
        self.start = start
        self.next = next
        self.epoch = epoch
        self.group_metadata = group_metadata
        self.doomed = doomed
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return f"Records({self.source} {self.start}..{self.next}, epoch {self.epoch})"

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return sum(map(len, filter(None, self.values)))

    @property
    def topic(self) -> str:
        return self.source.topic

    @property
    def partition(self) -> int:
        return self.source.partition

    @cached_property
    def values(self) -> list[bytes | None]:
        return [message.value() for message in self.messages]

    @cached_property
    def keys(self) -> list[bytes | None]:
        return [message.key() for message in self.messages]

    @cached_property
    def offsets(self) -> list[int]:
        return [message.offset() for message in self.messages]

    @cached_property
    def timestamps(self) -> list[int]:
        """When the broker appended each record, ms since 1970 (LogAppendTime)."""
        return [message.timestamp()[1] for message in self.messages]

    def headers(self, row: int) -> list[tuple[str, bytes | None]]:
        """The headers of one record; none where a name is not UTF-8, which neither Kafka nor its broker checks.

        The client raises for such a name, and at the next call gives out a tuple with a null pointer in it.
        """
        if row in self._unreadable:
            return []
        try:
            return list(self.messages[row].headers() or ())
        except (UnicodeDecodeError, SystemError):
            self._unreadable.add(row)
            return []


class Packed(Sequence[bytes]):
    """Byte strings back to back, as an Arrow array of binary or string holds them: string i is
    `data[starts[i]:starts[i + 1]]`.
    """

    def __init__(self, data: Any, starts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """`data`: an object with the buffer protocol, kept alive by this one; `starts`: one more than strings."""
        self._data = np.frombuffer(data, np.uint8)
        self._starts = starts

    @classmethod
    def of(cls, array: Any) -> Packed:
        """Of a pyarrow array of binary or string (with 32-bit offsets) without nulls. Nothing is copied but the
        offsets. Raises ValueError for another one.
        """
        if array.null_count or str(array.type) not in ("binary", "string"):
            raise ValueError("packed strings are a binary or string array without nulls")
        _, offsets, data = array.buffers()
        starts = np.frombuffer(offsets, np.int32, len(array) + 1, offset=4 * array.offset)
        return cls(data if data is not None else b"", starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        place = range(len(self))[row]
        return self._data[self._starts[place] : self._starts[place + 1]].tobytes()

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.diff(self._starts)

    def addresses(self, first: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Where in memory each string from `first` on begins, and its length; good while this object lives."""
        return self._data.ctypes.data + self._starts[first:-1], self.lengths[first:]


@dataclass(frozen=True, slots=True)
class Output:
    """Records for one partition of one topic, produced in this order.

    `keys` and `headers` are None (no record has one) or as long as `values`. A record costs 1.2 us, with headers
    4 us; .4 us where values (and keys, if any) are `Packed`.
    """

    topic: str
    partition: int
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Headers | None] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one `Records` became: written in one transaction with its offsets, or not at all.

    `changes` go to the changelog partition of the records, in this order; a value of None is a tombstone,
    keys that begin with a zero byte are taken. `apply` is called after the commit and before anything else
    happens to that partition, on the producer thread; it must not raise. It should change the very state
    object that the result was computed from, never look one up: after a rebalance that may be a newer one.
    """

    outputs: Sequence[Output] = field(default=())
    changes: Sequence[tuple[bytes, bytes | None]] = field(default=())
    apply: Callable[[], None] | None = None


NOTHING = Result()
