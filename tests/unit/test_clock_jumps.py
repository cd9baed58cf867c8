"""A clock that went ahead, closed an epoch, and came back: while its key lives, nothing comes twice."""

from __future__ import annotations

from pathlib import Path

from producers.clock import LiveClock
from tests.privacy_cases import EPOCH
from tests.unit.test_share_agent import OF, Log, Wall, agent, commit, oldest, restore, take, values
from tests.unit.test_share_agent import wall as wall

HOUR_MS = 3_600_000


def test_before_its_key_goes_an_epoch_may_open_again_and_its_ledger_is_still_there(
    tmp_path: Path, wall: Wall
) -> None:
    made, log = agent(tmp_path), Log(1)
    restore(made, log)
    commit(log, take(made, log.records(made.kafka.session.epoch, 0, "cat", 9)))
    closed = made._hop.decode(log.records(made.kafka.session.epoch, 0)).records  # behind it the clock is back
    commit(log, made.share(closed, made._hop.decode(closed)))
    assert oldest(made) < EPOCH
    again = take(made, log.records(made.kafka.session.epoch, 0, "cat", "dan", "dan"))
    commit(log, again)
    assert len(values(again)) == 1, "dan, once"
    assert made.states[log.source].counts.denied == {"slot-used": 2}
    restore(made, log)
    late = take(made, log.records(made.kafka.session.epoch, 0, "cat", "dan"))
    assert values(late, OF.topics.shared) == []


def test_while_the_clock_is_ahead_what_it_closed_is_denied(tmp_path: Path, wall: Wall) -> None:
    made, log = agent(tmp_path), Log(1)
    restore(made, log)
    first = log.records(made.kafka.session.epoch, 0, "cat")
    commit(log, take(made, first))
    ahead = log.records(made.kafka.session.epoch, 9)
    late = log.records(made.kafka.session.epoch, "dan")
    commit(log, take(made, ahead))
    assert values(take(made, late)) == []
    assert made.states[log.source].counts.denied == {"epoch-closed": 1}


def test_a_live_clock_stands_still_until_the_wall_clock_has_come_again_to_where_it_was() -> None:
    clock, start = LiveClock(60_000), 16_804 * 24 * HOUR_MS
    walls = [start, start + HOUR_MS, start + 60_000, start - HOUR_MS, start + HOUR_MS + 59_999]
    assert [clock.tick(now) for now in walls] == [start, start + HOUR_MS, None, None, None]
    assert clock.tick(start + HOUR_MS + 60_000) == start + HOUR_MS + 60_000
