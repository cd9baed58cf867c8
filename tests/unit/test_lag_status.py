"""Burrow's rules as a table, and what counts as waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.ops import lag_status
from sluice.ops.lag_status import History, Look, Status, judge, worst

LOOKS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12).map(
    lambda found: [Look(1000 * n, offset, messages) for n, (offset, messages) in enumerate(found)]
)


def window(*pairs: tuple[int, int]) -> list[Look]:
    """Offsets and messages, a second apart, from second 1 on."""
    return [Look(1000 * n, offset, messages) for n, (offset, messages) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("looks", "messages", "alive", "expected"),
    [
        ([], 0, False, Status.OK),
        (window((5, 9)), 0, True, Status.OK),
        (window((5, 9), (9, 0), (9, 9), (9, 9), (9, 9)), 9, True, Status.OK),  # zero within the window
        (window((5, 9), (6, 9), (4, 11), (6, 9), (7, 9)), 9, True, Status.REWIND),
        (window((5, 9), (4, 10)), 10, False, Status.REWIND),
        (window((5, 9)), 9, False, Status.STOP),
        ([], 9, False, Status.STOP),
        (window((5, 9)), 9, True, None),
        (window((5, 9), (5, 9)), 9, True, None),
        (window((5, 9), (6, 8)), 8, True, Status.OK),
        (window((5, 9), (6, 9)), 9, True, None),
        (window(*[(5, 9)] * 5), 9, True, Status.STALL),
        (window(*[(5, n) for n in range(9, 14)]), 13, True, Status.STALL),
        (window(*[(n, n + 5) for n in range(5)]), 9, True, Status.WARN),
        (window(*[(n, 9) for n in range(5)]), 9, True, Status.WARN),
        (window((0, 9), (1, 9), (2, 9), (4, 8), (5, 9)), 9, True, Status.OK),
    ],
)
def test_rules(looks: list[Look], messages: int, alive: bool, expected: Status | None) -> None:
    assert judge(looks, messages, 1000 * len(looks), alive) is expected


def test_stop_is_a_matter_of_the_passed_in_now() -> None:
    looks = window((1, 9), (2, 9), (3, 9), (4, 9), (5, 8))  # commits over 4 s, the last at second 5
    assert judge(looks, 8, 9_000, alive=False) is Status.OK
    assert judge(looks, 8, 9_001, alive=False) is Status.STOP
    assert judge(looks, 8, 9_001, alive=True) is Status.OK


@given(LOOKS, st.integers(0, 10**6), st.booleans())
def test_nothing_waiting_is_never_an_error(looks: list[Look], now_ms: int, alive: bool) -> None:
    assert judge(looks, 0, now_ms, alive) is Status.OK


@given(LOOKS, st.integers(1, 99), st.booleans(), st.integers(0, 10**9))
def test_only_differences_of_time_and_offset_matter(
    looks: list[Look], messages: int, alive: bool, by: int
) -> None:
    moved = [Look(look.at_ms + by, look.offset + by, look.messages) for look in looks]
    now_ms = 1000 * len(looks)
    assert judge(moved, messages, now_ms + by, alive) is judge(looks, messages, now_ms, alive)


def test_a_group_without_members_stops_though_its_past_was_good() -> None:
    history = History()
    for second in range(5):
        history.add(Look(1000 * second, 10 + second, 0), alive=True)
    for second in range(5, 120):
        history.add(Look(1000 * second, 14, second), alive=False)
    assert judge(history.looks, 119, 119_000, alive=False) is Status.STOP


def test_the_window_is_bounded() -> None:
    history = History()
    for second in range(1000):
        history.add(Look(1000 * second, second, 1), alive=True)
    assert len(history.looks) == lag_status.WINDOW_LOOKS


@pytest.mark.parametrize(
    ("committed", "low", "end", "transactional", "messages", "oldest", "lost"),
    [
        (100, 0, 101, True, 0, 101, 0),  # read everything; the marker is left
        (101, 0, 101, True, 0, 102, 0),  # read everything, position behind the marker
        (101, 0, 103, True, 1, 102, 0),  # one record and its marker
        (100, 0, 103, True, 2, 101, 0),  # the old marker cannot be told from a record
        (100, 0, 101, False, 1, 100, 0),
        (100, 0, 100, False, 0, 100, 0),
        (None, 40, 51, True, 10, 41, 0),  # never committed: all there is
        (10, 40, 51, True, 10, 41, 30),  # retention was faster
        (0, 0, 0, True, 0, 1, 0),
        (7, 0, 5, False, 0, 7, 0),  # a topic made anew
    ],
)
def test_waiting(
    committed: int | None, low: int, end: int, transactional: bool, messages: int, oldest: int, lost: int
) -> None:
    assert lag_status.waiting(committed, low, end, transactional) == messages
    assert lag_status.oldest_unread(committed, low, transactional) == oldest
    assert lag_status.expired(committed, low) == lost


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("c.raw.v1", True),
        ("c.shared.v12", True),
        ("models.t.v1", True),
        ("models.t.chunks.v1", True),
        ("models.t.acks.v1", False),
        ("orders", False),
        ("c.shared.v1x", False),
        ("_schemas", False),
    ],
)
def test_transactional_topics(topic: str, expected: bool) -> None:
    assert lag_status.is_transactional(topic) is expected


def test_worst() -> None:
    assert worst([]) is Status.OK
    assert worst([Status.OK, None]) is None
    assert worst([None, Status.WARN, Status.OK]) is Status.WARN
    assert worst([Status.STALL, Status.STOP, Status.REWIND]) is Status.STOP
