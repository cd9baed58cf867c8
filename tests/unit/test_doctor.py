"""What stands, what is torn, and how it is said: the pure parts of the lookout and of `sluice doctor`."""

from __future__ import annotations

import pytest

from sluice.ops import doctor_log, doctor_rules
from sluice.ops.doctor_log import Transaction
from sluice.ops.doctor_rules import Ends, Place
from streams.kafka.records import Source
from streams.kafka.stable import Stills

PLACE = Place.of("road.counts", 1)
RAW, SHARED = (PLACE.raw, 0), (PLACE.shared, 0)
ENDS = {RAW: Ends(0, 100, 100), SHARED: Ends(0, 40, 60)}
PARTITION = Source("t", 0)

# As Kafka 4.2.2 wrote them: one transaction on two topics, then aborted because its producer was fenced.
KEY = bytes.fromhex("0000000668616e672e31")
OPEN = bytes.fromhex(
    "000100000000000000000000000927c0010305782e696e020000000000135f5f636f6e73756d65725f6f66667365747302"
    "0000000000000001a2001be717000001a2001be5e700"
)
ABORTED = bytes.fromhex("000100000000000000000001000927c00501000001a2001be9bc000001a2001be5e70102020002")
EMPTY = bytes.fromhex("000100000000000000000000000927c00000000001a2001be5d5ffffffffffffffff00")
VERSION_0 = bytes.fromhex(
    "0000 0000000000000007 0003 00002710 02 00000001 0004 782e696e 00000002 00000000 00000005"
    "000001a2001be717 000001a2001be5e7"
)


def test_a_stand_is_seen_when_it_has_lasted_and_not_before() -> None:
    stills = Stills(patience_seconds=7, gap_seconds=2)
    for now in range(7):
        assert not stills.look(float(now), {PARTITION: (10, 12 + now)})
    (still,) = stills.look(7.0, {PARTITION: (10, 20)}).values()
    assert (still.stable, still.high, still.seconds) == (10, 20, 7.0)


def test_whatever_moves_or_is_stable_does_not_stand() -> None:
    stills = Stills(patience_seconds=3, gap_seconds=2)
    for now in range(20):
        assert not stills.look(float(now), {PARTITION: (now // 3, 100)})
    stills = Stills(patience_seconds=3, gap_seconds=2)
    for now in range(20):
        assert not stills.look(float(now), {PARTITION: (5, 5 if now % 3 == 2 else 6)})


def test_time_in_which_nobody_looked_is_no_time() -> None:
    """The broker was away, or this process was: the transaction could not have been ended."""
    stills = Stills(patience_seconds=7, gap_seconds=2)
    stills.look(0.0, {PARTITION: (10, 12)})
    stills.look(1.0, {PARTITION: (10, 12)})
    assert not stills.look(100.0, {PARTITION: (10, 12)})
    for now in range(101, 106):
        assert not stills.look(float(now), {PARTITION: (10, 12)})
    assert stills.look(106.0, {PARTITION: (10, 12)})
    assert stills.look(200.0, {PARTITION: (10, 12)}), "what is known to stand is not forgotten in a gap"
    assert not stills.look(201.0, {PARTITION: (11, 12)})


def test_what_was_not_looked_at_is_kept() -> None:
    stills = Stills(patience_seconds=3, gap_seconds=2)
    for now in range(8):
        found = stills.look(float(now), {PARTITION: (10, 12)} if now != 2 else {})
    assert set(found) == {PARTITION}


def test_the_record_of_transactions_is_read_as_kafka_writes_it() -> None:
    assert doctor_log.identity(KEY) == "hang.1"
    found = doctor_log.transaction("hang.1", OPEN)
    assert found == Transaction(
        "hang.1", 0, "open", 600_000, frozenset({("x.in", 0), ("__consumer_offsets", 0)}), 0x1A2001BE5E7
    )
    assert doctor_log.transaction("hang.1", ABORTED) is None
    assert doctor_log.transaction("hang.1", EMPTY) is None
    old = doctor_log.transaction("old", VERSION_0)
    assert old is not None
    assert (old.state, old.timeout_ms, old.began_ms) == ("being committed", 10_000, 0x1A2001BE5E7)
    assert old.partitions == {("x.in", 0), ("x.in", 5)}


def test_a_format_that_is_not_known_is_an_error_and_never_a_guess() -> None:
    assert doctor_log.identity(b"\x00\x01" + KEY[2:]) is None
    with pytest.raises(ValueError, match="version 2"):
        doctor_log.transaction("x", b"\x00\x02" + OPEN[2:])
    for cut in range(len(OPEN) - 10):
        with pytest.raises(ValueError, match="cut short"):
            doctor_log.transaction("x", OPEN[:cut])


def transaction(*partitions: tuple[str, int], identity: str = "p.1", state: str = "open") -> Transaction:
    return Transaction(identity, 7, state, 600_000, frozenset(partitions), began_ms=100_000)


def test_a_transaction_hangs_when_it_is_old_and_holds_something_back() -> None:
    held = transaction(SHARED, RAW, ("other", 3))
    (problem,) = doctor_rules.hanging(PLACE, ENDS, (), [held], now_ms=120_001, older_ms=20_000)
    assert (problem.kind, problem.where, problem.identity) == ("hanging", (SHARED,), "p.1")
    assert "up to 40 of 60" in problem.readers
    assert "Abort it" in problem.repair
    assert doctor_rules.hanging(PLACE, ENDS, (), [held], now_ms=120_000, older_ms=20_000) == []
    assert doctor_rules.hanging(PLACE, ENDS, (), [transaction(RAW)], 999_999, 20_000) == []


def test_a_transaction_on_the_groups_offsets_is_named_too() -> None:
    held = transaction(("__consumer_offsets", 0))
    (problem,) = doctor_rules.hanging(PLACE, {}, {RAW}, [held], 999_999, 20_000)
    assert (problem.where, problem.identity) == ((RAW,), "p.1")
    assert PLACE.group in problem.readers


def test_what_the_coordinator_ends_already_is_left_to_it() -> None:
    (problem,) = doctor_rules.hanging(
        PLACE, ENDS, (), [transaction(SHARED, state="being aborted")], 999_999, 20_000
    )
    assert (problem.kind, problem.repair, problem.identity) == ("ending", "", None)
    assert problem.remedy


def test_what_no_transaction_explains_is_said() -> None:
    assert doctor_rules.unexplained([RAW, SHARED], (), [transaction(SHARED)]) == [RAW]
    assert doctor_rules.unexplained([], [RAW], [transaction(SHARED)]) == [RAW]
    assert doctor_rules.unexplained([], [RAW], [transaction(("__consumer_offsets", 0))]) == []


@pytest.mark.parametrize(
    ("before", "after", "position", "kind", "offset"),
    [
        (None, None, None, None, None),
        (50, 50, 50, None, None),
        (50, 80, 70, None, None),  # a living worker went on between the questions
        (50, 50, 40, "ahead", 40),
        (50, 80, 40, "ahead", 40),
        (50, 50, 70, "behind", 70),
        (50, 60, 70, "behind", 70),
        (None, None, 70, "behind", 70),
        (50, 50, None, "no-changelog", None),
        (50, 50, 101, "ends-before", None),
    ],
)
def test_the_changelog_decides_what_the_groups_offset_should_be(
    before: int | None, after: int | None, position: int | None, kind: str | None, offset: int | None
) -> None:
    known = None if position is None else (position, "here")
    problem = doctor_rules.disagreement(PLACE, 0, (before, after), known, "here", ENDS[RAW])
    assert (problem.kind if problem else None) == kind
    if problem is not None:
        assert problem.offset == offset
        assert bool(problem.repair) == (offset is not None)
        assert problem.repair or problem.remedy
        assert f"{PLACE.raw}[0]" in problem.what


def test_a_changelog_of_another_cluster_is_never_compared() -> None:
    problem = doctor_rules.disagreement(PLACE, 0, (50, 50), (50, "there"), "here", ENDS[RAW])
    assert problem is not None
    assert (problem.kind, problem.offset, problem.repair) == ("other-cluster", None, "")


def test_what_retention_took_before_anybody_read_it_is_said() -> None:
    problem = doctor_rules.disagreement(PLACE, 0, (None, None), (30, "here"), "here", Ends(50, 90, 90))
    assert problem is not None
    assert "20 offsets behind it were deleted" in problem.repair
