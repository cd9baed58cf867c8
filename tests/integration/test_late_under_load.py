"""A file out of order by minutes, an hour, a day, nine days, and now and then days ahead, replayed at full speed.

Each event is shared once or denied for the reason that docs/privacy.md names, all are counted, and the totals are those
of an oracle that reads the raw log in plain Python.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import fastavro
import pytest

from producers.publish import Seen, publish
from producers.transaction import Transactions
from streams.kafka.producer import DisturbedError, Recyclable
from tests.chaos.events import MINUTE_MS
from tests.clocks.events import Script
from tests.clocks.scene import Scene
from tests.integration.conftest import RunningStack
from tests.integration.publish_help import line, log, make, write_rows

HOUR_MS = 60 * MINUTE_MS
EVENTS, UNITS = 20_000, 300
START_MS = 16_804 * 24 * 60 * MINUTE_MS + 23 * 60 * MINUTE_MS  # an hour before midnight


@pytest.mark.slow
def test_late_early_and_shuffled_events(stack: RunningStack, tmp_path: Path) -> None:
    script = Script(5, UNITS, START_MS)
    scene = Scene(stack.home, stack.connection, tmp_path, script, workers=2, follow=False, rate=0, cap=40)
    kinds = Counter(script.event(number).kind for number in range(EVENTS))
    try:
        scene.write(EVENTS)
        scene.begin()
        scene.drain()
    finally:
        codes = scene.close()
    assert set(codes.values()) == {0}
    verdict = scene.verdict()
    assert verdict.wrong == []
    assert scene.said() == {"events": EVENTS, "shared": verdict.shared, "denied": verdict.denied}
    assert verdict.shared + verdict.denied.total() == EVENTS
    # Every one of these is beyond the clock, whatever it says.
    assert verdict.denied["epoch-closed"] >= kinds["closed"]
    assert verdict.denied["epoch-future"] >= kinds["future"]
    assert verdict.denied["slot-too-old"] > 0
    assert verdict.denied["contribution-spent"] > 0
    assert verdict.denied["slot-used"] > kinds["again"] / 2
    for clocks in verdict.clocks.values():
        assert clocks == sorted(set(clocks))
        assert clocks[-1] <= START_MS + (EVENTS // UNITS + 10) * MINUTE_MS, "stray stamps moved the clock"


@pytest.mark.parametrize("committed", [False, True])
def test_a_recovery_sets_no_clock_back(
    stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The wall clock falls by an hour, and a transaction is in doubt just then."""
    made = make(tmp_path, stack.admin)
    write_rows(made.source, 10)
    wall, seen, stop = [START_MS], list[Seen](), threading.Event()

    class Doubtful(Recyclable):
        def commit(self) -> None:
            if wall[0] < START_MS and not self.doubted:
                Doubtful.doubted = True
                if committed:
                    super().commit()
                raise DisturbedError("planted")
            super().commit()

        doubted = False

    monkeypatch.setattr(Transactions, "producer", Doubtful)
    run = partial(publish, made.contract, stack.connection("producer"), follow=True, now_ms=lambda: wall[0])
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(run, stop=stop, progress=seen.append)
        try:
            for rows, moved in ((10, 0), (20, -HOUR_MS), (30, MINUTE_MS)):
                wall[0] = START_MS + moved
                with made.source.open("a") as file:
                    file.writelines(line(index) for index in range(rows - 10, rows) if rows > 10)
                deadline = time.monotonic() + 60
                while not seen or seen[-1].published < rows:
                    assert time.monotonic() < deadline
                    assert not report.done(), report.result()
                    time.sleep(0.05)
        finally:
            stop.set()
    assert report.result().recovered == 1
    (entries,) = log(stack.admin, made, made.contract.topics.raw)
    assert sum(not entry.clock for entry in entries) == 30
    clocks = [_long(entry.body) for entry in entries if entry.clock]
    assert clocks == [START_MS, START_MS + MINUTE_MS]


def _long(body: bytes) -> int:
    schema = {"type": "long"}
    return int(fastavro.schemaless_reader(io.BytesIO(body), schema, None))  # type: ignore[arg-type]
