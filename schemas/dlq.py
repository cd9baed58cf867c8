"""Headers of a dead letter: where the record came from and why, in the names of Kafka Streams (KIP-1034)."""

from __future__ import annotations

PREFIX = "__streams.errors."


def headers(topic: str, partition: int, offset: int, reason: str, stage: str) -> list[tuple[str, bytes]]:
    """The same bytes at every replay. `reason` and `stage` are fixed words: nothing of the record stands
    here."""
    texts = {
        "exception": reason,
        "message": f"{stage}: {reason}",
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
    }
    return [(PREFIX + name, text.encode()) for name, text in texts.items()]


def origin(sent: list[tuple[str, bytes]]) -> dict[str, str]:
    """The other way: `exception`, `message`, `topic`, `partition`, `offset` of a dead letter's headers."""
    return {name.removeprefix(PREFIX): text.decode() for name, text in sent if name.startswith(PREFIX)}
