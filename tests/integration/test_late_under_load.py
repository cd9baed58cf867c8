"""A file out of order by minutes, an hour, a day, nine days, and now and then days ahead, replayed at full speed.

Each event is shared once or denied for the reason that docs/privacy.md names, all are counted, and the totals are those
of an oracle that reads the raw log in plain Python.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.clocks.events import MINUTE_MS, Script
from tests.clocks.scene import Scene
from tests.integration.conftest import RunningStack

EVENTS, UNITS = 20_000, 300
START_MS = 16_804 * 24 * 60 * MINUTE_MS + 23 * 60 * MINUTE_MS  # an hour before midnight


@pytest.mark.slow
def test_late_early_and_shuffled_events(stack: RunningStack, tmp_path: Path) -> None:
    script = Script(5, UNITS, START_MS)
    scene = Scene(stack.home, stack.connection, tmp_path, script, workers=2, follow=False, rate=0)
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
