"""Publishing on the real broker: what is in raw, in the dead letters and in the position; again, followed, refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from producers.publish import Report, Seen, publish, wall_ms
from producers.sources import SourceChangedError
from schemas import dlq
from schemas.contract import load
from schemas.errors import ConfigurationError, FatalError, RetriableError, WallError
from schemas.partition import partition
from sluice.stack.provision import open_contract
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import make_topics, read, unique
from tests.integration.publish_help import (
    Made,
    decoded,
    line,
    log,
    make,
    progress,
    write_contract,
    write_rows,
)

MINUTE = 60_000


@pytest.fixture
def made(stack: RunningStack, tmp_path: Path) -> Made:
    return make(tmp_path, stack.admin)


def numbers(stack: RunningStack, made: Made) -> list[int]:
    """The field n of every event in raw, partition by partition."""
    found = log(stack.admin, made, made.contract.topics.raw)
    return [decoded(entry, made)["n"] for entries in found for entry in entries if not entry.clock]


def test_every_row_once_then_nothing_then_what_is_new(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 5_000)
    first = publish(made.contract, stack.connection("producer"))
    assert (first.tally.published, first.tally.rejected, first.resumed_from) == (5_000, 0, 0)
    again = publish(made.contract, stack.connection("producer"))
    assert (again.tally.published, again.tally.clocks, again.resumed_from) == (0, 0, 5_001)
    with made.source.open("a") as file:
        file.writelines(line(index) for index in range(5_000, 5_010))
    more = publish(made.contract, stack.connection("producer"))
    assert (more.tally.published, more.resumed_from) == (10, 5_001)
    assert numbers(stack, made) == list(range(5_010))


def test_broken_rows_are_dead_letters_with_their_line(stack: RunningStack, made: Made) -> None:
    broken = write_rows(made.source, 3_000, bad_every=100)
    report = publish(made.contract, stack.connection("producer"))
    assert (report.tally.published, report.tally.rejected) == (2_970, 30)
    assert [each.row.number for each in report.tally.first] == sorted(broken)[:10]
    letters = read(stack.admin, made.contract.topics.dlq)
    origins = [dlq.origin(letter.headers()) for letter in letters]
    assert {
        int(origin["offset"]): letter.value() for origin, letter in zip(origins, letters, strict=True)
    } == broken
    assert {origin["exception"] for origin in origins} == {
        "key-missing",
        "time-unreadable",
        "wrong-number-of-columns",
        "unclosed-quote",
    }
    assert {origin["topic"] for origin in origins} == {made.source.name}
    assert all(origin["message"].startswith("source: ") for origin in origins)
    position = progress(stack.admin, made)
    assert position is not None
    assert (position.published, position.rejected) == (2_970, 30)
    assert position.position.offset == made.source.stat().st_size


def test_a_private_cell_that_cannot_be_read_is_null(stack: RunningStack, made: Made) -> None:
    made.source.write_text(
        "sensor,at,n\ns1,2016-01-04 00:00:00,garbage\ns1,2016-01-04 00:01:00,\ns1,2016-01-04 00:02:00,7\n"
    )
    report = publish(made.contract, stack.connection("producer"))
    assert numbers(stack, made) == [None, None, 7]
    assert report.tally.unreadable == {"n": 1}
    assert report.tally.rejected == 0


def test_clocks_keys_and_partitions(stack: RunningStack, tmp_path: Path) -> None:
    made = make(tmp_path, stack.admin, partitions=3)
    write_rows(made.source, 1_000)
    report = publish(made.contract, stack.connection("producer"))
    found = log(stack.admin, made, made.contract.topics.raw)
    clocks = [[entry.body for entry in entries if entry.clock] for entries in found]
    assert clocks[0] == clocks[1] == clocks[2]
    assert len(clocks[0]) == report.tally.clocks
    assert report.tally.clocks >= 1_000 * 10 // 60 - 1
    for number, entries in enumerate(found):
        assert entries[0].clock
        clock = 0
        for entry in entries:
            if entry.clock:
                clock = read_long(entry.body)
                assert clock % MINUTE == 0
                assert entry.key is None
                continue
            event = decoded(entry, made)
            assert entry.key == event["sensor"].encode()
            assert partition(event["sensor"].encode(), 3) == number
            at = event["at"]
            ms = at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000
            assert 0 <= ms - clock < MINUTE or event["n"] == 999


def test_our_partition_is_librdkafkas(stack: RunningStack) -> None:
    topic = unique("partitioner")
    make_topics(stack.admin, topic, partitions=5)
    producer = Producer(stack.admin.settings(partitioner="murmur2"))
    keys = [f"key-{index}".encode() for index in range(200)]
    for key in keys:
        producer.produce(topic, b"", key)
    assert producer.flush(30) == 0
    for number in range(5):
        found = [message.key() for message in read(stack.admin, topic, number)]
        assert found == [key for key in keys if partition(key, 5) == number]


def read_long(body: bytes) -> int:
    value = shift = 0
    for byte in body:
        value |= (byte & 0x7F) << shift
        shift += 7
    return (value >> 1) ^ -(value & 1)


@contextmanager
def following(
    stack: RunningStack, made: Made, now_ms: Callable[[], int] = wall_ms
) -> Iterator[tuple[list[Seen], list[Report]]]:
    stop = threading.Event()
    seen: list[Seen] = []
    reports: list[Report] = []

    def run() -> None:
        producer = stack.connection("producer")
        reports.append(
            publish(made.contract, producer, follow=True, stop=stop, progress=seen.append, now_ms=now_ms)
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen, reports
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def wait_for(seen: list[Seen], published: int, seconds: float = 30) -> float:
    began = time.monotonic()
    while not seen or seen[-1].published < published:
        assert time.monotonic() - began < seconds, f"{seen[-1:]} instead of {published}"
        time.sleep(0.005)
    return time.monotonic() - began


def test_follows_appended_lines_and_a_rotation(stack: RunningStack, made: Made, tmp_path: Path) -> None:
    write_rows(made.source, 10)
    with following(stack, made) as (seen, reports):
        wait_for(seen, 10)
        delays = []
        with made.source.open("a") as file:
            for index in range(10, 20):
                file.write(line(index))
                file.flush()
                delays.append(wait_for(seen, index + 1))
        assert sorted(delays)[5] < 1.0
        made.source.rename(tmp_path / "counts.csv.1")
        with (tmp_path / "counts.csv.1").open("a") as file:
            file.write(line(20))
        wait_for(seen, 21)
        made.source.write_text("n,sensor,at\n21,s0,2016-01-05 00:00:00\n")
        wait_for(seen, 22)
    assert numbers(stack, made) == list(range(22))
    (report,) = reports
    assert any("was rotated" in notice for notice in report.notices)
    assert any("wall clock" in notice for notice in report.notices)  # rows of 2016 under today's clock
    position = progress(stack.admin, made)
    assert position is not None
    assert position.position.generation == 1
    entries = log(stack.admin, made, made.contract.topics.raw)[0]
    assert entries[0].clock
    assert abs(read_long(entries[0].body) - time.time() * 1000) < 10 * MINUTE
    made.source.write_text(made.source.read_text() + "22,s0,2016-01-05 00:01:00\n")
    assert publish(made.contract, stack.connection("producer"), follow=False).tally.published == 1


def test_a_followed_source_ticks_without_events(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 1)
    now = [1_451_900_000_000]

    def ahead() -> int:
        now[0] += 20_000
        return now[0]

    with following(stack, made, now_ms=ahead) as (seen, reports):
        wait_for(seen, 1)
        time.sleep(1.5)
    entries = log(stack.admin, made, made.contract.topics.raw)[0]
    clocks = [read_long(entry.body) for entry in entries if entry.clock]
    assert len(clocks) > 3
    assert clocks == sorted(set(clocks))
    assert all(clock % MINUTE == 0 for clock in clocks)
    assert reports[0].tally.clocks == len(clocks)


def test_rate_and_latency(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 100)
    seen: list[tuple[float, int]] = []
    report = publish(
        made.contract,
        stack.connection("producer"),
        rate=50,
        progress=lambda now: seen.append((time.monotonic(), now.published)),
    )
    assert report.tally.published == 100
    assert seen[-1][0] - seen[0][0] >= 1.5
    steps = [after - before for (_, before), (_, after) in pairwise(seen)]
    assert max(steps) <= 30  # about five events in 100 ms; a stall of the machine is made up for with five


def test_replay_speed(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 100)  # 990 s of event time
    began = time.monotonic()
    report = publish(made.contract, stack.connection("producer"), speed=990)
    assert report.tally.published == 100
    assert time.monotonic() - began >= 0.8


def test_stops_in_the_middle_and_goes_on(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 400)
    stop = threading.Event()
    first = publish(
        made.contract,
        stack.connection("producer"),
        rate=400,
        stop=stop,
        progress=lambda now: stop.set() if now.published > 100 else None,
    )
    assert 100 < first.tally.published < 400
    rest = publish(made.contract, stack.connection("producer"))
    assert first.tally.published + rest.tally.published == 400
    assert rest.resumed_from == first.tally.published + 1
    assert numbers(stack, made) == list(range(400))


def test_a_changed_file_is_refused_and_can_be_begun_anew(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 50)
    publish(made.contract, stack.connection("producer"))
    made.source.write_text(made.source.read_text().replace("s3", "s4"))
    with pytest.raises(SourceChangedError, match="has changed"):
        publish(made.contract, stack.connection("producer"))
    report = publish(made.contract, stack.connection("producer"), from_start=True)
    assert (report.tally.published, report.resumed_from) == (50, 0)
    other = made.source.with_name("other.csv")
    write_rows(other, 20)
    report = publish(made.contract, stack.connection("producer"), source=other)
    assert (report.tally.published, report.resumed_from) == (20, 0)
    assert publish(made.contract, stack.connection("producer"), source=other).tally.published == 0
    assert publish(made.contract, stack.connection("producer")).tally.published == 0


def test_waits_for_the_open_transaction_of_another_source(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 10)
    publish(made.contract, stack.connection("producer"))
    other = Producer(stack.admin.settings(transactional_id=unique("other"), transaction_timeout_ms=20_000))
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(made.contract.topics.source, b"{}", b"other.csv")
    other.flush(20)
    ended: list[float] = []

    def end() -> None:
        time.sleep(1.5)
        ended.append(time.monotonic())
        other.commit_transaction(20)

    thread = threading.Thread(target=end)
    thread.start()
    assert publish(made.contract, stack.connection("producer")).tally.published == 0
    assert ended
    thread.join()


def test_a_second_publisher_takes_over(stack: RunningStack, made: Made) -> None:
    write_rows(made.source, 2_000)
    problems: list[BaseException] = []
    seen: list[Seen] = []

    def slow() -> None:
        try:
            publish(made.contract, stack.connection("producer"), rate=200, progress=seen.append)
        except FatalError as problem:
            problems.append(problem)

    thread = threading.Thread(target=slow)
    thread.start()
    wait_for(seen, 50)
    report = publish(made.contract, stack.connection("producer"))
    thread.join(60)
    assert report.tally.published > 0
    assert "Another `sluice publish`" in str(problems[0])  # the earlier one gives way
    assert numbers(stack, made) == list(range(2_000))


def test_json_lines_and_units_that_events_carry(stack: RunningStack, tmp_path: Path) -> None:
    path = write_contract(tmp_path, partitions=2, file="counts.jsonl")
    text = path.read_text().replace("kind: csv", "kind: jsonl")
    text = text.replace("    n:      {type: int}", "    n:      {type: int}\n    who:    {type: string}")
    text = text.replace("{count: {min: 0, max: 1000, per_unit: 1}}", "{number: {min: 0, max: 1000}}")
    text = text.replace("held_by: assumed, basis: test, attested_by: test", "held_by: ledger")
    text = text.replace(
        "  fields:\n    sensor: {public", "  unit: [who]\n  fields:\n    who: drop\n    sensor: {public"
    )
    path.write_text(text)
    contract = load(path)
    made = Made(path, contract, dict(open_contract(contract, stack.admin).schema_ids))
    with contract.source.path.open("w") as file:
        for index in range(200):
            sensor, at, n = line(index).strip().split(",")
            file.write(f'{{"sensor": "{sensor}", "at": "{at}", "n": {n}, "who": "w{index % 11}"}}\n')
        file.write('{"sensor": "s1", "at": "2016-01-04 00:00:00"}\n')
    report = publish(contract, stack.connection("producer"))
    assert (report.tally.published, report.tally.rejected) == (200, 1)
    assert report.tally.first[0].reason == "unit-missing"
    where: dict[str, set[int]] = {}
    for number, entries in enumerate(log(stack.admin, made, contract.topics.raw)):
        for entry in entries:
            if not entry.clock:
                event = decoded(entry, made)
                assert entry.key == event["sensor"].encode()
                where.setdefault(event["who"], set()).add(number)
    assert all(len(numbers) == 1 for numbers in where.values())
    assert len(where) == 11


def test_errors_say_what_to_do(stack: RunningStack, made: Made, tmp_path: Path) -> None:
    producer = stack.connection("producer")
    with pytest.raises(ConfigurationError, match="does not exist"):
        publish(made.contract, producer)
    made.source.write_text("sensor,time,n\n")
    with pytest.raises(ConfigurationError, match=r"no column 'at'.*'time'"):
        publish(made.contract, producer)
    made.source.write_text("sensor,at,n\n" + "s1,04.01.2016,3\n" * 30)
    with pytest.raises(ConfigurationError, match=r"None of the first 30 rows .*time-unreadable, field 'at'"):
        publish(made.contract, producer)
    write_rows(made.source, 5)
    with pytest.raises(ConfigurationError, match="exclude each other"):
        publish(made.contract, producer, follow=True, speed=2)
    with pytest.raises(WallError, match="refused 'trainer'"):
        publish(made.contract, stack.connection("trainer"))
    with pytest.raises(WallError, match="refused to sign in 'producer'"):
        publish(made.contract, replace(producer, password=SecretStr("wrong")))
    with pytest.raises(RetriableError, match="No broker answers"):
        publish(made.contract, replace(producer, bootstrap="127.0.0.1:1"))
    with pytest.raises(RetriableError, match=r"registry at .* does not answer"):
        publish(made.contract, replace(producer, registry_url="http://127.0.0.1:1"))
    (tmp_path / "new").mkdir()
    unopened = load(write_contract(tmp_path / "new"))
    write_rows(unopened.source.path, 5)
    with pytest.raises((WallError, ConfigurationError)) as caught:
        publish(unopened, producer)
    assert "Open the contract as the owner's admin" in str(caught.value)
    assert numbers(stack, made) == []
