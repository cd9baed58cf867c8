"""What the share agent does around a hop, without a broker: whose state it takes, and when keys go."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from producers.encode import encoder
from schemas.codec import CLOCK, Decoder, Encoder
from schemas.contract import Contract
from schemas.partition import partition
from streams.agents import share
from streams.agents.hop import Hop
from streams.agents.partition import PartitionState
from streams.agents.share import ShareAgent
from streams.kafka.clients import Connection
from streams.kafka.records import NOTHING, Records, Result, Source
from streams.privacy.plan import Plan
from tests.privacy_cases import DAY_MS, EPOCH, START_MS, chain, contract, walk

NOW = START_MS + 1000 * DAY_MS
SHAPE = {
    "fields": "\n    person: {type: string}\n    at: {type: timestamp}\n    steps: {type: int}\n",
    "rules": "\n    person: pseudonym\n    at: {time: 1min}\n    steps: {count: {max: 20, min: 0, per_unit: 20}}\n",
    "top": "partitions: 2",
}
OF = contract(**SHAPE)
EVENT, TICK = encoder(1, OF.raw_schema), encoder(2, dict(CLOCK))


class Raw(NamedTuple):
    body: bytes
    name: bytes | None
    at: int

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes:
        return self.body

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW

    def headers(self) -> None:
        return None


class Log:
    """A raw partition that is read by an agent, and its ledger topic."""

    def __init__(self, partition: int) -> None:
        self.source, self.at = Source(OF.topics.raw, partition), 0
        self.ledger: list[tuple[bytes, bytes | None]] = []

    def records(self, epoch: int, *values: int | str) -> Records:
        """Clocks (days since the test's first) and names, each with an event at the last clock."""
        messages, day = [], 0
        for value in values:
            if isinstance(value, int):
                day = value
                messages.append(Raw(TICK({"clock_ms": START_MS + day * DAY_MS}), None, self.at))
            else:
                event = walk(value, at=START_MS + day * DAY_MS)
                messages.append(
                    Raw(EVENT({name: event[name] for name in OF.event.fields}), value.encode(), self.at)
                )
            self.at += 1
        return Records(self.source, messages, start=self.at - len(messages), next=self.at, epoch=epoch)


class Wall:
    """Seconds of wall time for the agent."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    found = Wall()
    monkeypatch.setattr(share, "time", found)
    made = Decoder({1: OF.raw_schema}, 2), Encoder(3, OF.shared_schema)
    monkeypatch.setattr(share, "codecs", lambda contract, connection: made)
    return found


def agent(home: Path, of: Contract = OF) -> ShareAgent:
    return ShareAgent(of, Connection("nowhere:1", "share", SecretStr("")), home, "share.test.0", NOW)


def oldest(made: ShareAgent) -> int:
    assert made._keys is not None
    return made._keys.oldest


def restore(made: ShareAgent, *logs: Log) -> None:
    made.kafka.session.advance()
    for log in logs:
        made._restore([log.source], iter(log.ledger))
        made.kafka.session.ready(made.kafka.session.epoch, log.source, log.at)


def take(made: ShareAgent, records: Records) -> Result:
    return made.share(records, made._hop.decode(records))


def commit(log: Log, result: Result) -> None:
    log.ledger += result.changes
    if result.apply is not None:
        result.apply()


def values(result: Result, topic: str = OF.topics.shared) -> list[Any]:
    return [value for output in result.outputs if output.topic == topic for value in output.values]


def test_names_live_where_the_tests_think() -> None:
    assert [partition(name.encode(), 2) for name in ("ann", "bob", "cat", "dan", "kim")] == [0, 0, 1, 1, 1]


def test_a_batch_of_an_older_epoch_does_not_touch_the_restored_state(tmp_path: Path, wall: Wall) -> None:
    """It will not be committed; had the state taken it over, its events would be denied when they come again."""
    made, log = agent(tmp_path), Log(1)
    restore(made, log)
    stale = log.records(made.kafka.session.epoch, 0, "cat", "dan")
    restore(made, log)
    assert take(made, stale) is NOTHING
    log.at = 0
    again = take(made, log.records(made.kafka.session.epoch, 0, "cat", "dan"))
    assert len(values(again)) == 2


def test_keys_and_ledger_rows_go_when_all_partitions_have_left_the_epoch(tmp_path: Path, wall: Wall) -> None:
    """Two workers of one home. Nothing goes by a clock that is not committed."""
    made, logs = (agent(tmp_path), agent(tmp_path)), (Log(0), Log(1))
    names = ("ann", "cat")
    for each, log, name in zip(made, logs, names, strict=True):
        restore(each, log)
        commit(log, take(each, log.records(each.kafka.session.epoch, 0, name, 9, name)))
    first, second = made
    old = oldest(first)
    wall.seconds = 3 * 86_400.0  # behind keep.raw of wall time
    take(first, logs[0].records(first.kafka.session.epoch, 9))
    assert (oldest(first), oldest(second)) == (old, old)  # the other has not told yet
    result = take(second, logs[1].records(second.kafka.session.epoch, 9))
    assert oldest(second) == EPOCH + 6
    assert second.states[logs[1].source].ledger.epochs == [EPOCH + 9]
    tombstones = [key for key, value in result.changes if value is None]
    assert any(key.startswith(b"H") for key in tombstones)
    commit(logs[1], result)
    wall.seconds += 60
    take(first, logs[0].records(first.kafka.session.epoch, 9))
    assert oldest(first) == EPOCH + 6
    restore(second, logs[1])
    # A publisher that begins anew with an old clock is denied, and nobody dies of it.
    again = take(second, logs[1].records(second.kafka.session.epoch, 0, "cat", "dan", 9, "cat"))
    assert values(again) == []
    assert second.states[logs[1].source].counts.denied == {"epoch-closed": 2, "slot-used": 1}
    assert second.states[logs[1].source].ledger.epochs == [
        EPOCH + 9
    ]  # old deltas, not compacted yet, go again


def test_a_clock_that_is_not_committed_destroys_nothing(tmp_path: Path, wall: Wall) -> None:
    made, logs = agent(tmp_path), [Log(0), Log(1)]
    restore(made, *logs)
    for log, name in zip(logs, ("ann", "cat"), strict=True):
        commit(log, take(made, log.records(made.kafka.session.epoch, 0, name)))
    old = oldest(made)
    lost = [
        take(made, log.records(made.kafka.session.epoch, 9, name))
        for log, name in zip(logs, ("bob", "dan"), strict=True)
    ]
    assert all(result.apply is not None for result in lost)
    wall.seconds = 3 * 86_400.0
    take(made, logs[0].records(made.kafka.session.epoch, 9))
    assert oldest(made) == old
    restore(made, *logs)
    wall.seconds += 60
    replayed = take(made, logs[1].records(made.kafka.session.epoch, 0, "kim"))
    assert oldest(made) == EPOCH - 3  # what the committed clocks have left: not the open epoch
    assert len(values(replayed)) == 1


def test_what_no_broker_would_take_comes_out_smaller_and_not_again_and_again(
    tmp_path: Path, wall: Wall
) -> None:
    """A message that cannot be produced fails its transaction, whose records then come back, for ever."""
    text = {
        **SHAPE,
        "fields": SHAPE["fields"] + "    place: {type: string}\n",
        "rules": SHAPE["rules"] + "    place: public\n",
        "top": "partitions: 2\nshares: {as: test/Walk, map: {at: at, one: place, two: place}}",
    }
    of = contract(**text)
    hop = Hop(of, Plan.of(of), chain(), Decoder({1: of.raw_schema}, 2), Encoder(3, of.shared_schema))
    event, log = encoder(1, of.raw_schema), Log(1)
    rows = [("cat", "x" * 500_000), ("dan", "x" * 400_000), ("kim", "park")]
    messages = [Raw(TICK({"clock_ms": START_MS}), None, 0)]
    for name, place in rows:
        messages.append(Raw(event({**walk(name), "place": place}), name.encode(), len(messages)))
    messages.append(Raw(b"\xff" * 1_000_000, b"k" * 10_000, len(messages)))
    messages.append(Raw(b"\xff" * 10, b"k" * 1_000_000, len(messages)))
    state = PartitionState()
    result = hop.share(hop.decode(Records(log.source, messages, start=0, next=len(messages))), state)
    shared, letters = result.outputs
    assert (len(shared.values), len(letters.values)) == (2, 3)
    assert (state.counts.shared, state.counts.events) == (2, 5)
    assert state.counts.rejected == {"shared-record-too-large": 1, "wrong-magic": 2}
    for output in result.outputs:
        for key, value in zip(output.keys or [], output.values, strict=True):
            assert len(key or b"") + len(value or b"") <= 900_000
    assert letters.values[0] == messages[1].body  # whole, where it fits


def test_the_next_version_of_a_contract_has_epochs_of_its_own(tmp_path: Path, wall: Wall) -> None:
    made, log = agent(tmp_path), Log(1)
    restore(made, log)
    assert len(values(take(made, log.records(made.kafka.session.epoch, 0, "cat")))) == 1
    changed = contract(version="2.0.0", **SHAPE)
    later, log = agent(tmp_path, changed), Log(1)
    restore(later, log)
    result = take(later, log.records(later.kafka.session.epoch, 0, "cat", 1, "cat"))
    assert len(values(result, changed.topics.shared)) == 1
    assert later.states[log.source].counts.denied == {"version-changed": 1}
