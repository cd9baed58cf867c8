"""A consumer that stands although there is something to read, told from one that has nothing."""

from __future__ import annotations

from streams.kafka.flow import Flow


def test_who_stands_below_the_end_is_stranded_after_as_many_looks() -> None:
    flow = Flow[str](3)
    looks = [flow.look({"a": (10, stable)}) for stable in (12, 12, 14, 14)]
    assert looks == [[], [], [], ["a"]]


def test_who_moves_or_is_at_the_end_is_not() -> None:
    flow = Flow[str](2)
    for at in range(10):  # far behind, but on the move
        assert flow.look({"a": (at, 100)}) == []
    for _ in range(10):
        assert flow.look({"a": (100, 100)}) == []


def test_a_new_consumer_begins_anew() -> None:
    flow = Flow[str](2)
    for epoch in range(10):
        for _ in range(2):
            assert flow.look({"a": (100, 101)}, epoch) == []
    assert flow.look({"a": (100, 101)}, 9) == ["a"]


def test_each_alarm_doubles_the_patience_until_something_moves() -> None:
    flow = Flow[str](2)
    alarms = [bool(flow.look({"a": (5, 9)})) for _ in range(17)]
    assert [look for look, alarm in enumerate(alarms) if alarm] == [2, 7, 16]
    flow.look({"a": (6, 9)})
    assert [bool(flow.look({"a": (6, 9)})) for _ in range(2)] == [False, True]


def test_one_of_two_is_named() -> None:
    flow = Flow[str](2)
    for n in range(2):
        assert flow.look({"a": (5, 8), "b": (n, 8)}) == []
    assert flow.look({"a": (5, 8), "b": (2, 8)}) == ["a"]
