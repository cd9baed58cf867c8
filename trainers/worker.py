"""From shared records to what one transaction of the trainer writes: forecasts, releases, and the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.codec import Encoder
from streams.kafka.records import NOTHING, Output, Records, Result, Source
from trainers.checkpoint import Parts, Recorder
from trainers.shared import SharedTopic
from trainers.trainer import Candidate, Setting, Taken, Trainer


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a trainer stands after a commit. `candidates`: those of this commit, with the gate's verdicts."""

    events: int = 0  # learned by this process
    unread: int = 0
    late: int = 0
    version: int = 0
    released: int = 0
    refused: int = 0
    as_of_ms: int | None = None
    transactions: int = 0
    record_bytes: int = 0  # size of the record
    written_bytes: int = 0  # of which this transaction wrote
    busy_seconds: float = 0.0
    candidates: tuple[Candidate, ...] = field(default=())


class RecordsError(Exception):
    """These records made the trainer fail."""

    def __init__(self, records: Records, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.records, self.cause = records, cause


class Worker:
    """The trainer of the current epoch. Built anew from the committed parts whenever the epoch changes."""

    def __init__(self, setting: Setting, topics: dict[str, SharedTopic], encoder: Encoder) -> None:
        self.progress = Progress()
        self._setting = setting
        self._topics = topics
        self._encoder = encoder
        self._epoch = -1
        self._committed: tuple[Parts, Recorder] = ({}, Recorder())

    def restore(self, sources: Sequence[Source], changelog: Iterable[tuple[bytes, bytes | None]]) -> None:
        """On the restore thread: only hands over, as the worker may still be in an older epoch."""
        recorder = Recorder()
        self._committed = (recorder.restore(changelog), recorder)

    def process(self, batch: Sequence[Records]) -> tuple[list[tuple[Records, Result]], Progress]:
        """Learn from records of one epoch; what must be written, and where that leads."""
        if batch[0].epoch != self._epoch:
            parts, recorder = self._committed
            self._trainer, self._recorder = Trainer(self._setting, parts), recorder.copy()
            self._epoch = batch[0].epoch
        taken: list[Taken] = []
        unread = 0
        for records in batch:
            try:
                events, poison = self._topics[records.topic].events(records)
                taken.append(self._trainer.take(events))
            except Exception as problem:
                raise RecordsError(records, problem) from problem
            unread += poison
        parts = self._trainer.parts()
        changes = self._recorder.changes(parts)
        outputs = [output for each in taken for output in self._outputs(each)]
        last = Result(outputs=outputs, changes=changes)
        work = [(records, NOTHING) for records in batch[:-1]] + [(batch[-1], last)]
        return work, self._told(taken, unread, parts, changes)

    def _outputs(self, taken: Taken) -> Iterator[Output]:
        task = self._setting.spec.task
        yield from self._forecasts(taken)
        for candidate in taken.candidates:
            if candidate.manifest is None or candidate.value is None:
                continue
            gone = [key.encode() for _, keys in candidate.cleared for key in keys]
            chunks = Output(
                f"models.{task}.chunks.v1",
                0,
                [*(piece for _, piece in candidate.chunks), *[None] * len(gone)],
                [*(key.encode() for key, _ in candidate.chunks), *gone],
            )
            old = [name.encode() for name, _ in candidate.cleared]
            manifest = Output(
                f"models.{task}.v1",
                0,
                [candidate.value, *[None] * len(old)],
                [candidate.manifest.release.encode(), *old],
            )
            yield chunks
            yield manifest

    def _forecasts(self, taken: Taken) -> Iterator[Output]:
        """One record for each event that gave a new forecast; a late one gave none."""
        found, spec = taken.forecasts, self._setting.spec
        rows = np.flatnonzero(found.learned)
        if not len(rows):
            return
        keys = [taken.events.keys[row] for row in rows.tolist()]
        clock = pa.timestamp("ms", "UTC")
        columns = {
            "key": pa.array(keys, pa.string()),
            "as_of": pa.array((found.target[rows] - 1) * spec.step_ms, pa.int64()).cast(clock),
            "target": pa.array((found.target[rows] - 1 + spec.horizon) * spec.step_ms, pa.int64()).cast(
                clock
            ),
            "value": pa.array(found.value[rows]),
            "quantiles": _lists(found.quantiles[rows]),
            "experts": _lists(found.experts[rows]),
        }
        values = self._encoder.encode(pa.RecordBatch.from_pydict(columns))
        yield Output(f"models.{spec.task}.forecasts.v1", 0, values, [key.encode() for key in keys])

    def _told(
        self, taken: Sequence[Taken], unread: int, parts: Parts, changes: Sequence[tuple[bytes, bytes | None]]
    ) -> Progress:
        was, line = self.progress, self._trainer.line
        candidates = tuple(candidate for each in taken for candidate in each.candidates)
        released = sum(candidate.verdict.publish for candidate in candidates)
        return Progress(
            events=was.events + sum(len(each.events.keys) for each in taken),
            unread=was.unread + unread,
            late=self._trainer.learner.late,
            version=line.version,
            released=was.released + released,
            refused=was.refused + len(candidates) - released,
            as_of_ms=None if line.as_of is None else line.as_of * self._setting.spec.step_ms,
            transactions=was.transactions + 1,
            record_bytes=sum(map(len, parts.values())),
            written_bytes=sum(len(key) + len(value or b"") for key, value in changes),
            busy_seconds=was.busy_seconds,
            candidates=candidates,
        )


def _lists(array: np.ndarray[Any, Any]) -> pa.Array:
    """float64 [N, M] as N lists."""
    width = array.shape[1]
    ends = pa.array(np.arange(0, array.size + 1, width, dtype=np.int32))
    return pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(array).reshape(-1)))
