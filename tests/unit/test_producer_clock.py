"""The clock's rules, the pace, and the partition of a key."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import ahead as ahead_module
from producers.ahead import Ahead
from producers.clock import LAST_STEP_MS, LOOK_AHEAD, LiveClock, ReplayClock, grid_ms
from producers.pace import CATCH_UP_SECONDS, Pace
from producers.parse import Event, Parser
from producers.sources import Row
from schemas.contract import load
from tests.unit.test_producer_parse import ALL, GOOD, Fake, contract
from tests.unit.test_producer_parse import row as made_row

GRID = 300_000
DAY = 86_400_000
START = 16_804 * DAY


def clocks(times: list[int], last: int | None = None) -> list[tuple[int, int]]:
    """(row, clock written before it) for a file of these times."""
    clock = ReplayClock(GRID, last)
    moved = []
    for row, time in enumerate(times):
        due = clock.before(time, times[row + 1 : row + 1 + LOOK_AHEAD])
        if due is not None:
            moved.append((row, due))
    return moved


def steady(count: int, start: int = START) -> list[int]:
    return [start + i * GRID for i in range(count)]


def test_the_grid_is_the_contracts() -> None:
    assert grid_ms(load("traffic.detector-counts")) == GRID


def test_a_steady_file_moves_the_clock_before_each_row() -> None:
    assert clocks(steady(20)) == [(i, START + i * GRID) for i in range(20)]


def test_many_keys_share_one_clock_record() -> None:
    times = [START + i * GRID + 7 for i in range(10) for _ in range(50)]
    assert clocks(times) == [(i * 50, START + i * GRID) for i in range(10)]


@pytest.mark.parametrize("ahead", [6 * 3_600_000, 40 * DAY, 10**6 * DAY])
@pytest.mark.parametrize("run", [1, 2, 3, 4])
@pytest.mark.parametrize("at", [0, 1, 50, 90])
def test_stray_stamps_ahead_move_nothing(ahead: int, run: int, at: int) -> None:
    times = steady(100)
    stray = [*times[:at], *[time + ahead for time in times[at : at + run]], *times[at + run :]]
    # Near the stray rows the clock may be a few steps late or early (the median of the first), never ahead.
    assert max(due for _, due in clocks(stray)) <= times[-1]
    for row, due in clocks(stray):
        assert due <= times[min(len(times) - 1, row + LOOK_AHEAD)]


@pytest.mark.parametrize("at", [0, 20])
def test_a_date_that_means_open_moves_nothing_however_often_it_comes(at: int) -> None:
    """Else every epoch up to the year 9999 would be over, and the rest of the file denied."""
    sentinel, clock = 253_402_214_400_000, ReplayClock(GRID, now_ms=START + 366 * DAY)
    times = [*steady(at), *[sentinel] * 100, *steady(20, START + at * GRID)]
    moved = [clock.before(time, times[i + 1 : i + 1 + LOOK_AHEAD]) for i, time in enumerate(times)]
    assert max(due for due in moved if due is not None) == times[-1]
    assert moved[-1] == times[-1]


def test_a_stray_last_row_moves_nothing_but_a_step_does() -> None:
    assert clocks([*steady(20), START + 40 * DAY])[-1] == (19, START + 19 * GRID)
    assert clocks([START, START + LAST_STEP_MS])[-1] == (1, START + LAST_STEP_MS)


def test_a_real_gap_moves_the_clock_before_its_first_row() -> None:
    times = [*steady(20), *steady(20, START + 3 * DAY)]
    assert (20, START + 3 * DAY) in clocks(times)


def test_late_rows_do_not_hold_the_clock() -> None:
    rng = random.Random(1)
    times = [time - (DAY if rng.random() < 0.2 else 0) for time in steady(500)]
    moved = clocks(times)
    assert moved[-1][1] >= START + 490 * GRID


@given(
    st.lists(st.integers(-(10**13), 10**13), min_size=1, max_size=60),
    st.integers(0, 59),
)
def test_only_forward_and_the_same_after_a_resume(times: list[int], cut: int) -> None:
    whole = clocks(times)
    assert all(before < after for (_, before), (_, after) in pairwise(whole))
    assert all(due % GRID == 0 for _, due in whole)
    assert whole[0][0] == 0  # before the first event there is a clock
    cut = min(cut, len(times))
    clock = ReplayClock(GRID)
    first = []
    for row in range(cut):
        due = clock.before(times[row], times[row + 1 : row + 1 + LOOK_AHEAD])
        first += [(row, due)] if due is not None else []
    rest = [(cut + row, due) for row, due in clocks(times[cut:], clock.last)]
    assert first + rest == whole


def test_next_changes_nothing() -> None:
    clock = ReplayClock(GRID)
    assert clock.next(START, [START]) == START
    assert clock.last is None
    assert clock.before(START, [START]) == START
    assert not clock.moves(START + GRID - 1)


def test_the_live_clock_ticks_on_the_grid_and_never_back() -> None:
    clock = LiveClock(GRID)
    assert clock.tick(START + 5) == START
    assert clock.tick(START + GRID - 1) is None
    assert clock.tick(START + 3 * GRID + 1) == START + 3 * GRID
    assert clock.tick(START) is None


def test_pace_by_rate() -> None:
    pace = Pace(rate=10)
    now, sent = 100.0, []
    for _ in range(20):
        now = max(now, pace.due(0, now))
        sent.append(now)
    assert sent[0] == 100.0
    assert sent[-1] == pytest.approx(100.0 + 19 * 0.1)
    now += 60  # a stall is not made up for in a burst
    caught_up = [pace.due(0, now) for _ in range(5)]
    assert caught_up[0] >= now - CATCH_UP_SECONDS
    assert caught_up[3] > now


def test_pace_by_replay_speed() -> None:
    pace = Pace(speed=300)
    assert pace.due(START, 50.0) == 50.0
    assert pace.due(START + GRID, 50.0) == pytest.approx(51.0)
    assert pace.due(START - DAY, 51.0) == pytest.approx(51.0)
    assert Pace().unlimited
    assert Pace(0, 0).unlimited


class Rows(Fake):
    """A source of good and broken rows: `what` has a letter for each, g or b."""

    def __init__(self, what: str, at_once: int) -> None:
        super().__init__("csv", *ALL, wanted=ALL)
        self.what, self.at_once, self.most = what, at_once, 0

    def read(self, limit: int) -> list[Row]:
        taken, self.what = self.what[: self.at_once], self.what[self.at_once :]
        return [made_row(*GOOD) if letter == "g" else made_row("", *GOOD[1:]) for letter in taken]


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_ahead_has_the_followers_in_hand(at_once: int) -> None:
    source = Rows("gbgggb" * 10, at_once)
    ahead = Ahead(source, Parser(contract(), source))  # type: ignore[arg-type]
    followers = []
    while (item := ahead.head()) is not None:
        if isinstance(item, Event):
            followers.append(len(ahead.following()))
        ahead.drop()
    assert followers == [min(LOOK_AHEAD, 39 - at) for at in range(40)]


@pytest.mark.parametrize("at_once", [100, 999])
def test_a_stretch_of_broken_rows_is_not_kept_in_memory(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "WINDOW", 2_000)
    source = Rows("b" * 10_000 + "ggg" + "b" * 10_000 + "g", at_once)
    ahead = Ahead(source, Parser(contract(), source))  # type: ignore[arg-type]
    most, followers = 0, []
    while (item := ahead.head()) is not None:
        most = max(most, len(ahead._items))
        if isinstance(item, Event):
            followers.append(len(ahead.following()))
        ahead.drop()
    assert most <= 4_000
    assert followers == [2, 1, 0, 0]


def test_following_never_waits_for_more_than_one() -> None:
    source = Rows("gg", 1)
    ahead = Ahead(source, Parser(contract(), source), depth=0)  # type: ignore[arg-type]
    assert isinstance(ahead.head(), Event)
    assert source.what == "g"
