"""One task's trainer as a value: events in; forecasts and releases out; its record as bytes. No Kafka, no
clock.

Predict, then learn: `take` hands each event to the learner, which has issued its forecast before. A release
falls due when the first event of a new period comes (event time, `release_every` in the task): the candidate
is the learner *before* that event. So releases depend on the log alone, and any batch borders give the same
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trainers import gate, release
from trainers.checkpoint import Parts
from trainers.events import Forecasts
from trainers.learner import Learner
from trainers.manifest import FILE_LIMIT, NEEDED, Manifest, chunk_key, seal, split
from trainers.signing import Signer
from trainers.spec import Public, TaskSpec
from trainers.tensors import dump, load

SEED = 0
KEPT_RELEASES = 64  # older ones are cleared from the topics; a subscriber starts at the newest anyway
Slots = NDArray[np.int64]
PublicPart = Mapping[str, Any]  # schemas.public.part, from the `sluice` attribute of a shared schema


@dataclass(frozen=True, slots=True)
class Events:
    """Shared records of one partition in log order, decoded. `next`: offset after them; row by row the
    others.
    """

    topic: str
    partition: int
    next: int
    keys: list[str]
    slots: Slots
    values: NDArray[np.float64]
    offsets: Slots
    schema_ids: Slots


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release that fell due, and what the gate said. `value` and `chunks` are None where it was refused."""

    number: int
    verdict: gate.Verdict
    scores: gate.Scores
    manifest: Manifest | None = None
    value: bytes | None = None
    chunks: tuple[tuple[str, bytes], ...] = ()
    cleared: tuple[tuple[str, tuple[str, ...]], ...] = ()  # releases to clear away: name, chunk keys


@dataclass(frozen=True, slots=True)
class Taken:
    """What a batch gave: forecasts with the keys and slots of its events, and the candidates in between, in
    order.
    """

    events: Events
    forecasts: Forecasts
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Where the line of releases stands. Times in slots; `live`: releases in the topics, oldest first."""

    version: int = 0
    parent: str | None = None
    candidates: int = 0
    as_of: int | None = None
    period: int | None = None
    champion_keys: int = 0
    champion_as_of: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)  # "topic/partition" -> next offset
    schemas: Mapping[str, int] = field(default_factory=dict)  # topic -> schema id of its newest event
    live: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        told = json.loads(data)
        told["live"] = tuple((name, tuple(chunks)) for name, chunks in told["live"])
        return cls(**told)


@dataclass(frozen=True, slots=True)
class Setting:
    """What does not change while a trainer runs. `public_of(schema id)`: public part of the contract that
    wrote it.
    """

    spec: TaskSpec
    public: Public
    signer: Signer
    cluster: str
    manifest_schema_id: int
    public_of: Callable[[int], PublicPart]
    tamper: Callable[[int, bytes], bytes] = lambda number, graph: (
        graph
    )  # (candidate's number, graph); for the demo


class Trainer:
    """State of one task. Build it anew from the last committed parts after any failure."""

    def __init__(self, setting: Setting, parts: Parts | None = None) -> None:
        self._setting = setting
        spec = setting.spec
        if not parts:
            self.learner = Learner(spec, setting.public, SEED)
            self.line = Line()
            self._champion: bytes | None = None
            return
        self.learner = Learner.from_state(spec, setting.public, load(parts["learner"])[0])
        self.line = Line.decode(parts["line"])
        self._champion = parts["champion"] or None

    def parts(self) -> Parts:
        """The whole state; `Trainer(setting, parts)` goes on from it bit for bit."""
        return {
            "learner": dump(self.learner.state()),
            "line": self.line.encode(),
            "champion": self._champion or b"",
        }

    def take(self, events: Events) -> Taken:
        """Learn from a batch, in the order of the log."""
        forecasts: list[Forecasts] = []
        candidates: list[Candidate] = []
        every = self._setting.spec.release_ms // self._setting.spec.step_ms
        periods = np.maximum.accumulate(events.slots // every) if len(events.slots) else events.slots
        start = 0
        while start < len(events.keys):
            period = int(periods[start])
            if self.line.period is None:
                self.line = replace(self.line, period=period)
            elif period > self.line.period:
                self._advance(events, start, int(events.offsets[start]))
                candidates.append(self._candidate())
                self.line = replace(self.line, period=period)
            border = max(period, self.line.period or 0)
            stop = start + int(np.searchsorted(periods[start:], border, side="right"))
            forecasts.append(
                self.learner.step(
                    events.keys[start:stop], events.slots[start:stop], events.values[start:stop]
                )
            )
            newest = int(events.slots[start:stop].max())
            self.line = replace(
                self.line, as_of=max(newest, newest if self.line.as_of is None else self.line.as_of)
            )
            self._advance(events, stop, events.next)
            start = stop
        self._advance(events, len(events.keys), events.next)
        return Taken(events, _joined(forecasts), tuple(candidates))

    def _advance(self, events: Events, stop: int, offset: int) -> None:
        """Everything before row `stop` is learned, everything before `offset` is done with."""
        sources = {**self.line.sources, f"{events.topic}/{events.partition}": offset}
        schemas = dict(self.line.schemas)
        if stop:
            schemas[events.topic] = int(events.schema_ids[stop - 1])
        self.line = replace(self.line, sources=sources, schemas=schemas)

    def _rival(self) -> release.Champion | None:
        if self._champion is None:
            return None
        return release.Champion(self._champion, self.line.champion_keys, self.line.champion_as_of)

    def _candidate(self) -> Candidate:
        setting, line, learner = self._setting, self.line, self.learner
        as_of = line.as_of
        assert as_of is not None  # a period ends after an event
        number = line.candidates + 1
        self.line = line = replace(line, candidates=number)
        graph = setting.tamper(number, learner.export_onnx())
        scores = release.scores(learner, graph, self._rival())
        verdict = gate.judge(scores)
        if not verdict.publish:
            return Candidate(number, verdict, scores)
        version = line.version + 1
        contracts = [setting.public_of(id_) for _, id_ in sorted(line.schemas.items())]
        contents = release.files(setting.spec, learner, graph, version, contracts)
        size = sum(len(contents[name]) for name in NEEDED)
        if size > FILE_LIMIT:
            why = f"refused: a release of {size >> 20} MiB, a subscriber takes {FILE_LIMIT >> 20} MiB"
            return Candidate(number, gate.Verdict(False, (*verdict.reasons, why)), scores)
        manifest = release.manifest(
            setting.spec,
            learner,
            contents,
            version=version,
            parent=line.parent,
            as_of_slot=as_of,
            sources={(setting.cluster, *_source(name)): offset for name, offset in line.sources.items()},
            contracts=contracts,
        )
        chunks = tuple(
            (chunk_key(manifest.release, name, index), piece)
            for name, content in contents.items()
            for index, piece in enumerate(split(content))
        )
        live = (*line.live, (manifest.release, tuple(key for key, _ in chunks)))
        self.line = replace(
            line,
            version=version,
            parent=manifest.release,
            champion_keys=len(learner.keys),
            champion_as_of=as_of,
            live=live[-KEPT_RELEASES:],
        )
        self._champion = graph
        value = seal(manifest, setting.signer, setting.manifest_schema_id)
        return Candidate(number, verdict, scores, manifest, value, chunks, live[:-KEPT_RELEASES])


def _source(name: str) -> tuple[str, int]:
    topic, _, partition = name.rpartition("/")
    return topic, int(partition)


def _joined(parts: list[Forecasts]) -> Forecasts:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Forecasts.empty(np.zeros(0, np.intp))
    names = Forecasts.__dataclass_fields__
    return Forecasts(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
