"""The soak's own judgement: an oracle or a bar that sees nothing would call every run good."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.soak.bars import broken
from tests.soak.events import PARTITIONS, Script
from tests.soak.figures import after, growth, p99, slope_an_hour
from tests.soak.oracle import Oracle
from tests.soak.others import Others

COUNT = 20_000
SCRIPT = Script(seed=1, start_ms=0)


def told() -> tuple[Oracle, list[tuple[int, int]]]:
    """An oracle that knows all events, and what must be shared of them: (partition, number)."""
    oracle = Oracle(PARTITIONS)
    for number in range(COUNT):
        oracle.sent(SCRIPT.event(number))
    return oracle, [(partition, number) for partition, due in oracle._due.items() for number in due]


def shown(wanted: list[tuple[int, int]]) -> Oracle:
    oracle, _ = told()
    for partition, number in wanted:
        oracle.saw(partition, number)
    return oracle


def test_the_script_has_a_bit_of_everything() -> None:
    oracle, wanted = told()
    assert oracle.events == COUNT
    assert oracle.broken == pytest.approx(COUNT * 0.002, rel=0.5)
    assert set(oracle.denied) == {"slot-used"}
    assert oracle.denied.total() == pytest.approx(COUNT * 0.05, rel=0.2)
    assert len(wanted) == oracle.shared == COUNT - oracle.broken - oracle.denied.total()
    assert {partition for partition, _ in wanted} == set(range(PARTITIONS))


def test_a_clean_run() -> None:
    oracle = shown(told()[1])
    assert (oracle.waiting, oracle.duplicated, oracle.reordered) == (0, 0, 0)


def test_what_is_planted_is_counted() -> None:
    _, wanted = told()
    rng = random.Random(1)
    lost = [each for each in wanted if rng.random() > 0.001]
    oracle = shown(lost)
    assert (oracle.waiting, oracle.duplicated, oracle.reordered) == (len(wanted) - len(lost), 0, 0)
    twice = [each for each in wanted for _ in range(1 + (rng.random() < 0.001))]
    oracle = shown(twice)
    assert (oracle.waiting, oracle.duplicated, oracle.reordered) == (0, len(twice) - len(wanted), 0)
    swapped = [*wanted[:10], wanted[11], wanted[10], *wanted[12:]]
    oracle = shown(swapped)
    assert (oracle.waiting, oracle.duplicated, oracle.reordered) == (0, 0, 1)
    denied = next(n for n in range(COUNT) if (0, n) not in set(wanted) and n > 5000)
    oracle = shown([*wanted[:100], (0, denied), *wanted[100:]])
    assert oracle.duplicated == 1, "shared, and should have been denied"


def test_slope_and_growth() -> None:
    rng = random.Random(2)
    hour = [(float(at), 200 + 3 * at / 3600 + rng.uniform(-1, 1)) for at in range(3600)]
    assert slope_an_hour(hour) == pytest.approx(3, abs=0.2)
    assert growth(hour) == pytest.approx(3, abs=0.3)
    step = [(float(at), 200.0 + 4 * (at > 1200)) for at in range(3600)]
    assert slope_an_hour(step) == pytest.approx(0, abs=0.01)
    assert growth(step) == 4
    assert (slope_an_hour([]), growth([]), slope_an_hour([(0.0, 1.0)])) == (0, 0, 0)
    assert after(step, 3599) == [(3599.0, 204.0)]
    assert p99([float(each) for each in range(1, 101)]) == 99
    assert p99([]) is None


def test_seconds_of_others_do_not_count() -> None:
    others = Others()
    others.cores = [(float(at), 1.5 if at == 50 else 0.1) for at in range(1, 101)]
    assert others.busy_seconds() == set(range(49, 61))


GOOD: dict[str, Any] = {
    **dict.fromkeys(("lost", "duplicated", "reordered"), 0),
    "counts_differ": False,
    "drained": True,
    "exits": {"share": 0},
    "seconds": 300.0,
    "quiet_seconds": 300,
    "lag_p99_s": 0.3,
    "delay_p99_s": 0.4,
    "processes": {
        name: {
            "rss_mb": 100.0,
            "rss_growth_mb": 1.0,
            "rss_slope_mb_h": 9.0,
            "files_growth": 0.0,
            "threads_growth": 0.0,
        }
        for name in ("share", "publish", "train", "registry", "broker")
    },
}


def test_bars() -> None:
    assert broken(GOOD) == []
    assert len(broken({**GOOD, "seconds": 3600.0, "quiet_seconds": 3600})) == 4, (
        "a slope counts in a long run"
    )
    for name, value in {
        "lost": 1,
        "duplicated": 1,
        "counts_differ": True,
        "drained": False,
        "exits": {"share": 75},
        "lag_p99_s": 2.0,
        "delay_p99_s": None,
    }.items():
        assert len(broken({**GOOD, name: value})) == 1, name
    for name, value in {
        "rss_growth_mb": 8.1,
        "files_growth": 3.0,
        "threads_growth": 3.0,
        "rss_mb": None,
    }.items():
        for role in ("share", "registry"):
            held = {**GOOD["processes"][role], name: value}
            assert len(broken({**GOOD, "processes": {**GOOD["processes"], role: held}})) == 1, name
        held = {**GOOD["processes"]["broker"], name: value}
        assert broken({**GOOD, "processes": {**GOOD["processes"], "broker": held}}) == []
    share = {**GOOD["processes"]["share"], "rss_growth_mb": 99.0}
    late = {**GOOD, "lag_p99_s": 9.0, "processes": {**GOOD["processes"], "share": share}}
    assert len(broken(late)) == 2
    assert broken({**late, "quiet_seconds": 140}) == [], "others had the machine"
    assert len(broken({**late, "quiet_seconds": 140, "lost": 1})) == 1
