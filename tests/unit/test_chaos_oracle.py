"""The chaos run's oracle counts what is planted; an oracle that sees nothing would call every run clean."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest

from streams.privacy.admission import REASONS, admit
from streams.privacy.rows import EpochRows
from tests.chaos.audit import number_of
from tests.chaos.events import CAP, DAY_MS, PARTITIONS, ROUNDS, Event, Script, units_for
from tests.chaos.oracle import Model, Oracle, Tally, Trace, Verdict
from tests.chaos.plans import KINDS, plan

COUNT = 30_000
SCRIPT = Script(seed=3, units=300, start_ms=16_804 * DAY_MS)


def told() -> Oracle:
    oracle = Oracle(CAP, PARTITIONS)
    for event in SCRIPT.events(COUNT):
        oracle.sent(event)
    return oracle


def traced(found: dict[int, list[int]]) -> Trace:
    """As readers of both kinds would see these numbers."""
    trace = Trace()
    for partition, numbers in found.items():
        for number in numbers:
            trace.saw(partition, number, b"payload-%d" % number, committed=True)
            trace.saw(partition, number, b"payload-%d" % number, committed=False)
    return trace


def copy(found: dict[int, list[int]]) -> dict[int, list[int]]:
    return {partition: list(numbers) for partition, numbers in found.items()}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return told()


def test_what_was_expected_is_clean(oracle: Oracle) -> None:
    for wanted in (oracle.raw, oracle.shared, oracle.letters):
        assert traced(copy(wanted)).compare(wanted, oracle.key) == Verdict()
    assert oracle.ledger_errors(dict(oracle.model.rows), dict(oracle.tallies)) == 0


def test_a_loss_is_counted(oracle: Oracle) -> None:
    found = copy(oracle.shared)
    del found[2][100:103]
    assert traced(found).compare(oracle.shared, oracle.key) == Verdict(lost=3)


def test_a_partition_that_is_empty_is_lost(oracle: Oracle) -> None:
    found = copy(oracle.shared)
    lost = len(found.pop(1))
    assert traced(found).compare(oracle.shared, oracle.key) == Verdict(lost=lost)


def test_a_duplicate_is_counted_and_is_no_reordering(oracle: Oracle) -> None:
    found = copy(oracle.shared)
    found[0] += found[0][-50:]
    assert traced(found).compare(oracle.shared, oracle.key) == Verdict(duplicated=50)


def test_a_reordering_within_a_key_is_counted_and_between_keys_is_not(oracle: Oracle) -> None:
    found = copy(oracle.shared)
    first = found[3][40]
    again = next(number for number in found[3][41:] if oracle.key(number) == oracle.key(first))
    here, there = 40, found[3].index(again)
    assert there - here > 1
    found[3][here], found[3][there] = again, first
    assert traced(found).compare(oracle.shared, oracle.key) == Verdict(reordered=1)
    found = copy(oracle.shared)
    found[3][40:42] = found[3][41:39:-1]
    assert oracle.key(found[3][40]) != oracle.key(found[3][41])
    assert traced(found).compare(oracle.shared, oracle.key) == Verdict()


def test_a_second_payload_counts_though_only_uncommitted_readers_see_it(oracle: Oracle) -> None:
    trace = traced(copy(oracle.shared))
    trace.saw(0, oracle.shared[0][7], b"another answer", committed=False)
    trace.saw(0, oracle.shared[0][8], b"payload-%d" % oracle.shared[0][8], committed=False)
    assert trace.compare(oracle.shared, oracle.key) == Verdict(second_payloads=1)


def test_a_denied_event_in_shared_and_one_in_a_foreign_partition_are_unexpected(oracle: Oracle) -> None:
    denied = next(number for number in oracle.raw[0] if number not in set(oracle.shared[0]))
    trace = traced(copy(oracle.shared))
    trace.saw(0, denied, b"", committed=False)
    trace.saw(1, oracle.shared[0][0], b"payload-%d" % oracle.shared[0][0], committed=True)
    assert trace.compare(oracle.shared, oracle.key) == Verdict(unexpected=2)


def test_ledger_errors_are_counted(oracle: Oracle) -> None:
    rows, tallies = dict(oracle.model.rows), dict(oracle.tallies)
    who = iter(list(rows))
    del rows[next(who)]
    hi, mask, used = rows[changed := next(who)]
    rows[changed] = hi, mask ^ 2, used
    rows[0, 0] = 1, 1, 1
    assert oracle.ledger_errors(rows, tallies) == 3
    tallies[1] = Tally(tallies[1].events, tallies[1].shared + 1, tallies[1].denied, tallies[1].rejected)
    del tallies[2]
    assert oracle.ledger_errors(rows, tallies) == 5


def test_an_uncommitted_ledger_that_spent_too_much_is_seen(oracle: Oracle) -> None:
    who, (_, _, used) = next(iter(oracle.model.rows.items()))
    assert oracle.ahead([(who, used), (who, used - 1)]) == 0
    assert oracle.ahead([(who, used + 1), ((1, 1), 1)]) == 2


def test_poison_is_raw_and_a_letter() -> None:
    oracle = told()
    raw, letters = len(oracle.raw[2]), len(oracle.letters[2])
    oracle.poison(2, [-1, -5])
    assert (len(oracle.raw[2]), len(oracle.letters[2])) == (raw + 2, letters + 2)
    assert traced({2: [-5, -1]}).compare({2: [-1, -5]}, oracle.key) == Verdict(reordered=1)


def test_events_that_were_left_out_are_refused() -> None:
    oracle = Oracle(CAP, PARTITIONS)
    with pytest.raises(ValueError):
        oracle.sent(SCRIPT.event(1))


def test_the_script_has_every_outcome_and_repeats() -> None:
    oracle = told()
    reasons: Counter[str] = sum((tally.denied for tally in oracle.tallies.values()), Counter())
    assert set(reasons) == {"slot-used", "slot-too-old", "contribution-spent"}
    assert min(reasons.values()) > 100
    assert sum(map(len, oracle.letters.values())) > 20
    assert list(SCRIPT.events(500)) == list(SCRIPT.events(500))
    assert list(SCRIPT.events(500)) != list(Script(4, 300, SCRIPT.start_ms).events(500))
    assert units_for(10_000_000) * ROUNDS >= 10_000_000
    with pytest.raises(ValueError):
        SCRIPT.event(SCRIPT.limit)


def by_product(events: Iterable[Event]) -> tuple[Counter[str], int]:
    """The shipped ledger's answers, a batch at a time."""
    rng, found, shared = random.Random(1), Counter[str](), 0
    epochs: dict[int, EpochRows] = {}
    stream = iter(events)
    while batch := list(islice(stream, rng.randrange(1, 2000))):
        for epoch in {event.epoch for event in batch}:
            mine = [event for event in batch if event.epoch == epoch]
            units, codes = np.unique([event.unit for event in mine], return_inverse=True)
            tags = np.stack([units.astype(np.uint64), np.zeros(len(units), np.uint64)], axis=1)
            held = epochs.setdefault(epoch, EpochRows())
            rows = held.find(tags)
            slots = np.array([event.slot for event in mine], np.int64)
            verdict = admit(codes.astype(np.int64), slots, held.states(rows), CAP, 1 << 40)
            held.put(tags[verdict.units], rows[verdict.units], verdict.states)
            found.update(REASONS[code] for code in verdict.codes.tolist() if code)
            shared += int((verdict.codes == 0).sum())
    return found, shared


def test_the_model_is_the_ledger() -> None:
    """Two programs that share no line; where they agree on 30,000 events, the rules are what both read."""
    oracle = told()
    reasons, shared = by_product(event for event in SCRIPT.events(COUNT) if not event.broken)
    assert reasons == sum((tally.denied for tally in oracle.tallies.values()), Counter())
    assert shared == sum(tally.shared for tally in oracle.tallies.values())


def test_the_model_by_hand() -> None:
    model = Model(4)
    asked = [(100, ""), (100, "slot-used"), (36, "slot-too-old"), (37, ""), (37, "slot-used"), (170, "")]
    for slot, answer in [*asked, (100, "slot-too-old"), (169, ""), (171, "contribution-spent")]:
        assert model.admit(1, 1, slot) == answer, slot
    assert model.admit(2, 1, 100) == ""


def test_a_plan_follows_from_its_seed() -> None:
    def first(seed: int) -> list[object]:
        return list(islice(plan(seed, KINDS), 60))

    assert first(1) == first(1)
    assert first(1) != first(2)
    kinds = Counter(fault.kind for fault in islice(plan(5, KINDS), 200))
    assert set(kinds) == set(KINDS)


def test_numbers_are_read_as_avro_writes_them() -> None:
    import io

    import fastavro

    for number in (0, 1, 63, 64, 8191, 8192, 1_499_999, 2**40, -3):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, ["null", "long"], number)
        assert number_of(b"\0\0\0\0\1" + out.getvalue() + b"rest") == number
