"""The chaos run's oracle of releases and lessons reports what is planted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from tests.chaos.events import DAY_MS, MINUTE_MS, Event, Script, who
from tests.chaos.oracle import Trace, Verdict
from tests.chaos.plans import endtxns, kills
from tests.chaos.releases import Findings, Releases
from tests.chaos.scene import Patience
from tests.chaos.trained import STEP_MINUTES, Lessons, Record, record_errors
from tests.releases import OTHER, SIGNER, Made, make
from trainers.checkpoint import Recorder
from trainers.manifest import avro_source
from trainers.tensors import dump
from trainers.trainer import Line

SCRIPT = Script(seed=3, units=300, start_ms=16_804 * DAY_MS)


def line(count: int = 5) -> list[Made]:
    made: list[Made] = []
    for version in range(1, count + 1):
        parent = made[-1].manifest.release if made else None
        made.append(make(version, 100 * version, parent=parent, as_of_ms=(100 + version) * 300_000))
    return made


def newest(sources: Mapping[int, int]) -> int:
    return 100 + sources[0] // 100


def saw(made: list[Made], *more: tuple[bytes, bytes, bool]) -> Releases:
    """What the topics would hold; `more`: further manifests, with whether they are committed."""
    found = Releases(avro_source("model_update"), SIGNER.public)
    for committed in (True, False):
        for each in made:
            for chunk, piece in each.chunks.items():
                found.chunk(chunk.encode(), piece, committed=committed)
            found.manifest(each.manifest.release.encode(), each.value, committed=committed)
    for key, value, committed in more:
        found.manifest(key, value, committed=committed)
    return found


def verdict(made: list[Made], *more: tuple[bytes, bytes, bool]) -> Findings:
    return saw(made, *more).compare(newest)


def name(made: Made) -> bytes:
    return made.manifest.release.encode()


def test_a_whole_line_is_clean() -> None:
    assert verdict(line()) == Findings()
    assert verdict([]) == Findings()


def test_a_missing_release_and_one_from_the_middle_again_are_counted() -> None:
    made = line()
    found = verdict([*made[:2], *made[3:]])
    assert (found.lost, found.bad) == (1, 0)
    assert verdict(made, (name(made[1]), made[1].value, True)).duplicated == 1
    assert verdict([*made[:2], made[3], made[2], made[4]]).reordered == 1


def test_a_release_without_the_first_is_a_lost_one() -> None:
    found = verdict(line()[1:])
    assert (found.lost, found.clean) == (1, False)


def test_another_payload_counts_though_only_uncommitted_readers_see_it() -> None:
    made = line()
    again = make(3, 300, parent=made[1].manifest.release, as_of_ms=103 * 300_000, schema_id=8)
    assert name(again) == name(made[2])
    assert verdict(made, (name(again), again.value, False)).second_payloads == 1
    vain = make(6, 599, parent=made[4].manifest.release)
    found = saw(made, (name(vain), vain.value, False))
    assert (found.compare(newest), found.aborted) == (Findings(), 1)


def test_what_is_not_signed_by_the_task_is_bad_whoever_reads_it() -> None:
    made = line()
    forged = make(6, 600, parent=made[4].manifest.release, signer=OTHER)
    assert verdict(made, (name(forged), forged.value, False)).bad == 1
    for place in (3, 40, -1, -70):  # schema id aside, every byte is under the signature
        value = bytearray(made[4].value)
        value[place] ^= 1
        expected = 0 if place == 3 else 1
        assert verdict(made[:4], (name(made[4]), bytes(value), False)).bad == expected
    assert verdict(made[:4], (name(made[4]), made[4].value[:50], True)).bad == 1
    assert verdict(made[:4], (b"another-key", made[4].value, False)).bad == 1


def test_offsets_that_stand_or_lie_and_a_wrong_parent_are_bad() -> None:
    made = line()
    stands = make(6, 500, parent=made[4].manifest.release, as_of_ms=106 * 300_000)
    lies = make(6, 600, parent=made[4].manifest.release, as_of_ms=107 * 300_000)
    orphan = make(6, 600, parent=made[3].manifest.release, as_of_ms=106 * 300_000)
    right = make(6, 600, parent=made[4].manifest.release, as_of_ms=106 * 300_000)
    for planted, bad in ((stands, 2), (lies, 1), (orphan, 1), (right, 0)):
        assert verdict([*made, planted]).bad == bad


def test_chunks_that_lack_differ_or_belong_to_nobody_are_seen() -> None:
    made = line()
    first = next(iter(made[2].chunks))
    without = {key: piece for key, piece in made[2].chunks.items() if key != first}
    assert verdict([*made[:2], replace(made[2], chunks=without), *made[3:]]).lost == 1
    damaged = {**made[2].chunks, first: b"something else"}
    assert verdict([*made[:2], replace(made[2], chunks=damaged), *made[3:]]).bad == 1
    stray = {**made[2].chunks, "00000009-abcdefabcdef/card.md/0000": b"x"}
    assert verdict([*made[:2], replace(made[2], chunks=stray), *made[3:]]).bad == 1
    releases = saw(made)
    releases.chunk(first.encode(), made[2].chunks[first], committed=True)
    assert releases.compare(newest).duplicated == 1


def lessons(count: int = 20_000) -> Lessons:
    found = Lessons(60)
    for event in SCRIPT.events(count):
        if not event.broken:
            found.shared(event)
    return found


def answered(found: Lessons) -> Trace:
    trace = Trace()
    for (station, slot), _ in found.numbers.items():
        trace.saw(0, found.number(station, slot * STEP_MINUTES * MINUTE_MS), b"", committed=True)
    return trace


def test_lessons_are_the_first_event_of_each_later_slot_of_a_station() -> None:
    found = Lessons(60)
    station, first = who(0)[1], SCRIPT.event(0).slot // STEP_MINUTES * STEP_MINUTES
    units = [unit for unit in range(300) if who(unit)[1] == station][:3]
    at = [(0, 0), (1, 4), (2, 5), (0, 3), (1, 12), (2, 61)]
    for number, (unit, minute) in enumerate(at):
        found.shared(Event(number, units[unit], first + minute, 0, False, 1))
    assert list(found.numbers.values()) == [0, 2, 4, 5]
    assert (found.events, found.learned) == (6, 4)
    assert found.candidates == len({(first + minute) // 60 for _, minute in at}) - 1


def test_a_forecast_that_lacks_or_comes_twice_or_too_many_is_counted() -> None:
    found = lessons()
    assert answered(found).compare({}, lambda _: None).unexpected == found.learned > 500
    assert found.compare(answered(found)) == Verdict()
    missing = lessons()
    missing.numbers.pop(next(iter(missing.numbers)))
    assert found.compare(answered(missing)) == Verdict(lost=1)
    (station, slot), number = next(iter(found.numbers.items()))
    trace = answered(found)
    trace.saw(0, number, b"", committed=True)
    trace.saw(0, found.number(station, (slot - 7) * STEP_MINUTES * MINUTE_MS), b"", committed=False)
    assert found.compare(trace) == Verdict(duplicated=1, unexpected=1)


def record(told: Line, learned: int, late: int) -> dict[bytes, bytes | None]:
    """As the trainer's own code writes it."""
    counts = np.array([1, 0, learned, late, 3], np.int64)
    learner = dump({"a": np.zeros(9000), "learner.counts": counts})
    parts = {"learner": learner, "line": told.encode(), "champion": b""}
    changes: dict[bytes, bytes | None] = dict(Recorder().changes(parts))
    for source, offset in told.sources.items():
        changes[b"\0position/" + source.encode()] = json.dumps({"next": offset, "cluster": "c"}).encode()
    return changes


def test_a_record_is_read_and_each_number_of_it_counts() -> None:
    found = lessons()
    sources, last = {"c.shared.v1/0": 40, "c.shared.v1/1": 50}, {0: 38, 1: 48}
    told = Line(version=2, parent="b", candidates=found.candidates, sources=sources)
    read = Record.of(record(told, found.events, found.events - found.learned))
    assert read.sources == read.positions == {0: 40, 1: 50}
    good = (["a", "b"], {0: 40, 1: 50}, last)
    assert record_errors(read, found, *good) == []
    for wrong in (
        replace(read, events=read.events + 1),
        replace(read, late=read.late - 1),
        replace(read, candidates=read.candidates + 1),
        replace(read, positions={0: 40, 1: 49}),
        replace(read, sources={0: 40}),
    ):
        assert len(record_errors(wrong, found, *good)) == 1
    assert len(record_errors(read, found, ["b"], *good[1:])) == 1
    assert len(record_errors(read, found, ["a", "c"], *good[1:])) == 1
    assert len(record_errors(read, found, ["a", "b"], {0: 40, 1: 50}, {0: 38, 1: 50})) == 1
    assert len(record_errors(Record(), found, *good)) > 5


def test_a_record_of_which_a_shard_is_of_another_transaction_is_refused() -> None:
    changes = record(Line(), 5, 1)
    for key, value in changes.items():
        if key.startswith(b"learner/"):
            for other in (b"\1" + (value or b"")[1:], (value or b"")[1:], None):
                with pytest.raises(ValueError, match="not whole"):
                    Record.of({**changes, key: other})
    assert Record.of({}) == Record()


def test_a_plan_of_kills_holds_what_was_asked_for_and_repeats() -> None:
    script = kills(1, 100, 10)
    kinds = [fault.kind for fault in script]
    assert kinds.count("broker") == 10
    assert sum(kinds.count(kind) for kind in ("kill", "trainer", "producer", "registry")) == 100
    assert {fault.name for fault in script} >= {"kill:restart", "kill:takeover", "rebalance:add"}
    assert kinds.count("rebalance") >= 6
    assert kills(1, 100, 10) == script != kills(2, 100, 10)
    assert [len(kills(1, 12, 1)), len(kills(1, 3, 0)), len(endtxns(1, 50))] == [14, 3, 50]
    assert {fault.target for fault in endtxns(1, 50)} == {0, 1, 2, 3}


def test_patience_is_for_what_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tests.chaos.scene.time.monotonic", lambda: now[0])
    patience = Patience(60)
    for second in range(200):
        now[0] = float(second)
        moving, standing = second // 50, min(second // 50, 1)
        assert patience.over({0: moving, 1: standing}) == (second > 50 + 60)
    assert not Patience(60).over({0: 5})
