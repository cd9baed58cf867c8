"""Cells to events: what becomes null, what goes to the dead letters, and what the zone does to a time."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.parse import Broken, Event, Parser, wanted
from producers.sources import Row
from producers.times import TimeProblemError, reader
from schemas.contract import Contract, parse
from schemas.errors import ConfigurationError
from schemas.event import Time

CONTRACT = """
contract: test.parse
version: 1.0.0
owner: me
source: {{kind: {kind}, path: f}}
event:
  key: sensor
  time: {{field: at, format: "%Y-%m-%d %H:%M", zone: Europe/Berlin}}
  fields:
    sensor: {{type: string}}
    at:     {{type: timestamp, column: When}}
    who:    {{type: string}}
    n:      {{type: int}}
    x:      {{type: float, default: 1.5}}
    ok:     {{type: bool}}
    seen:   {{type: timestamp}}
privacy:
  protects: person
  neighbours: values
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 1.0
  contribution: {{max: 4, of: [sensor, at], held_by: ledger}}
  unit: [who]
  normalise: [nfc, trim, lower]
  fields:
    sensor: {{public: {{because: a place}}}}
    at:     {{time: 5min}}
    who:    drop
    n:      {{count: {{min: 0, max: 10, per_unit: 10}}}}
    x:      {{number: {{min: 0, max: 10, step: 1}}}}
    ok:     drop
    seen:   drop
shares: {{}}
terms: {{purpose: [testing], for: 1d}}
"""


class Fake:
    """A source that has a header and nothing else."""

    def __init__(self, kind: str, *header: str, wanted: tuple[str, ...]) -> None:
        self.kind, self.header = kind, header
        self.columns = tuple(name for name in wanted if name in header or kind == "jsonl")


def contract(kind: str = "csv") -> Contract:
    return parse(CONTRACT.format(kind=kind))


ALL = ("sensor", "When", "who", "n", "x", "ok", "seen")


def parser(kind: str = "csv", header: tuple[str, ...] = ALL) -> Parser:
    made = contract(kind)
    return Parser(made, Fake(kind, *header, wanted=wanted(made)))  # type: ignore[arg-type]


def row(*cells: object) -> Row:
    return Row(7, 7, 70, cells, b"raw")


GOOD = ("s1", "2016-01-04 08:05", "  Ann ", "3", "2.5", "yes", "2016-01-04 08:06")


def test_wanted_are_the_named_columns() -> None:
    assert wanted(contract()) == ALL


def test_a_good_row() -> None:
    event = parser().parse(row(*GOOD))
    assert isinstance(event, Event)
    assert event.key == b"s1"
    assert event.record == {
        "sensor": "s1",
        "at": 1451891100000,
        "who": "  Ann ",
        "n": 3,
        "x": 2.5,
        "ok": True,
        "seen": 1451891160000,
    }
    assert event.time_ms == 1451891100000
    assert event.unreadable == ()
    assert event.hashed == b"ann"


@pytest.mark.parametrize(
    ("index", "cell", "name"),
    [
        (3, "garbage", "n"),
        (3, "1_000", "n"),
        (3, "nan", "n"),
        (3, True, "n"),
        (3, [1], "n"),
        (4, "garbage", "x"),
        (4, {"a": 1}, "x"),
        (5, "maybe", "ok"),
        (6, "yesterday", "seen"),
    ],
)
def test_an_unreadable_private_cell_is_null_and_counted(index: int, cell: object, name: str) -> None:
    cells: list[object] = list(GOOD)
    cells[index] = cell
    event = parser().parse(row(*cells))
    assert isinstance(event, Event)
    assert event.record[name] is None
    assert event.unreadable == (name,)


@pytest.mark.parametrize(
    ("index", "cell", "value"),
    [
        (3, "12.5", 12),
        (3, "-12.5", -13),
        (3, Decimal("12.5"), 12),
        (3, "9" * 30, 2**63 - 1),
        (3, "9" * 5000, 2**63 - 1),
        (3, 2**63, 2**63 - 1),
        (3, -(2**63) - 1, -(2**63)),
        (3, "inf", 2**63 - 1),
        (4, 10**400, math.inf),
        (4, -(10**400), -math.inf),
    ],
)
def test_a_noised_number_is_floored_and_clamped_and_never_becomes_its_default(
    index: int, cell: object, value: float
) -> None:
    """12 and 12.5, or 2**63 - 1 and 2**63, may be one unit apart: a default is not."""
    cells: list[object] = list(GOOD)
    cells[index] = cell
    event = parser().parse(row(*cells))
    assert isinstance(event, Event)
    assert event.record[ALL[index]] == value
    assert event.unreadable == ()


@pytest.mark.parametrize(
    ("index", "cell", "reason", "name"),
    [
        (0, "", "key-missing", "sensor"),
        (0, None, "key-missing", "sensor"),
        (0, ["s1"], "key-unreadable", "sensor"),
        (0, "\ud800", "key-unreadable", "sensor"),
        (1, "", "time-missing", "at"),
        (1, "not a time", "time-unreadable", "at"),
        (1, "2016-13-01 00:00", "time-unreadable", "at"),
        (1, "2016-03-27 02:30", "time-skipped-by-clock-change", "at"),
        (1, True, "time-unreadable", "at"),
        (2, " ", "unit-missing", "who"),
        (2, {"a": 1}, "unit-unreadable", "who"),
    ],
)
def test_a_broken_key_time_or_unit_is_a_dead_letter(index: int, cell: object, reason: str, name: str) -> None:
    cells: list[object] = list(GOOD)
    cells[index] = cell
    broken = parser().parse(row(*cells))
    assert isinstance(broken, Broken)
    assert (broken.reason, broken.field, broken.row.number) == (reason, name, 7)


def test_a_broken_row_keeps_its_reason() -> None:
    broken = parser().parse(Row(3, 3, 9, None, b"x", "wrong-number-of-columns"))
    assert broken == Broken(
        Row(3, 3, 9, None, b"x", "wrong-number-of-columns"), "wrong-number-of-columns", ""
    )


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_empty_cells_are_defaults_or_null_and_no_alarm(empty: object) -> None:
    event = parser().parse(row(*GOOD[:3], empty, empty, empty, empty))
    assert isinstance(event, Event)
    assert [event.record[name] for name in ("n", "x", "ok", "seen")] == [None, 1.5, None, None]
    assert event.unreadable == ()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12),
        (" 12 ", 12),
        ("12.0", 12),
        (12, 12),
        (12.0, 12),
        ("-3", -3),
        (Decimal("4"), 4),
        ("1e3", 1000),
    ],
)
def test_whole_numbers(cell: object, value: int) -> None:
    event = parser().parse(row(*GOOD[:3], cell, *GOOD[4:]))
    assert isinstance(event, Event)
    assert event.record["n"] == value


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", float("nan")])
def test_not_finite_floats_pass(cell: object) -> None:
    event = parser().parse(row(*GOOD[:4], cell, *GOOD[5:]))
    assert isinstance(event, Event)
    assert isinstance(event.record["x"], float)
    assert event.unreadable == ()


def test_a_missing_column_is_said_with_those_that_are_there() -> None:
    with pytest.raises(ConfigurationError, match=r"no column 'n'.*has: 'sensor', 'When'") as caught:
        parser(header=("sensor", "When", "who", "x", "ok", "seen"))
    assert "event.fields.n.column" in caught.value.remedy


def test_a_column_with_a_default_may_be_missing() -> None:
    event = parser(header=("sensor", "When", "who", "n", "ok", "seen")).parse(row(*GOOD[:4], *GOOD[5:]))
    assert isinstance(event, Event)
    assert event.record["x"] == 1.5


def test_json_lines_may_leave_out_what_may_be_null() -> None:
    event = parser("jsonl", ("sensor", "When", "who")).parse(row(*GOOD[:3], None, None, None, None))
    assert isinstance(event, Event)
    with pytest.raises(ConfigurationError, match="no column 'When'"):
        parser("jsonl", ("sensor", "who"))


def ms(*parts: int) -> int:
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("time", "cell", "expected"),
    [
        (
            Time(field="t", format="%d/%m/%Y %H:%M", zone="America/Los_Angeles"),
            "4/1/2016 0:05",
            ms(2016, 1, 4, 8, 5),
        ),
        (
            Time(field="t", format="%d/%m/%Y %H:%M", zone="America/Los_Angeles"),
            "4/7/2016 0:05",
            ms(2016, 7, 4, 7, 5),
        ),
        (Time(field="t"), "2016-01-04T00:00:00.125Z", ms(2016, 1, 4) + 125),
        (Time(field="t"), "2016-01-04T01:00+01:00", ms(2016, 1, 4)),
        (Time(field="t", zone="Europe/Berlin"), "2016-01-04 01:00", ms(2016, 1, 4)),
        (Time(field="t", format="epoch_s"), "1451865600.5", ms(2016, 1, 4) + 500),
        (Time(field="t", format="epoch_s"), 1451865600, ms(2016, 1, 4)),
        (Time(field="t", format="epoch_ms"), "1451865600500", ms(2016, 1, 4) + 500),
        (Time(field="t", zone="Europe/Berlin"), datetime(2016, 1, 4, 1), ms(2016, 1, 4)),
        (Time(field="t", zone="Europe/Berlin"), date(2016, 1, 4), ms(2016, 1, 3, 23)),
        (Time(field="t"), datetime(2016, 1, 4, tzinfo=timezone(timedelta(hours=1))), ms(2016, 1, 3, 23)),
        # repeated by a change of the clock: the first occurrence, in summer time
        (Time(field="t", zone="Europe/Berlin"), "2016-10-30 02:30", ms(2016, 10, 30, 0, 30)),
        (Time(field="t", zone="Europe/Berlin"), "2016-10-30 03:00", ms(2016, 10, 30, 2)),
    ],
)
def test_times(time: Time, cell: object, expected: int) -> None:
    assert reader(time)(cell) == expected


@pytest.mark.parametrize(
    ("time", "cell", "reason"),
    [
        (Time(field="t"), "2016-01-04 01:00", "time-without-zone"),
        (Time(field="t", zone="Europe/Berlin"), "2016-03-27 02:00", "time-skipped-by-clock-change"),
        (Time(field="t", zone="Europe/Berlin"), "2016-03-27 02:59:59", "time-skipped-by-clock-change"),
        (Time(field="t", format="epoch_ms"), "1e400", "time-unreadable"),
        (Time(field="t", format="epoch_ms"), "nan", "time-unreadable"),
        (Time(field="t", format="epoch_s"), 1e300, "time-unreadable"),
        (Time(field="t", zone="Europe/Berlin"), "0001-01-01 00:00", "time-unreadable"),
        (Time(field="t"), None, "time-missing"),
        (Time(field="t"), [1], "time-unreadable"),
    ],
)
def test_times_that_are_none(time: Time, cell: object, reason: str) -> None:
    with pytest.raises(TimeProblemError) as caught:
        reader(time)(cell)
    assert caught.value.reason == reason
    assert str(cell) not in str(caught.value)


@given(
    moment=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
    pattern=st.sampled_from(
        ["%d/%m/%Y %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y%m%d%H%M%S", "%m.%d.%Y", "%H:%M %d %m %Y"]
    ),
    drop=st.booleans(),
    zone=st.sampled_from(["America/Los_Angeles", "Europe/Berlin", "Australia/Lord_Howe", "UTC"]),
)
def test_numbers_are_read_as_strptime_and_the_zone_database_read_them(
    moment: datetime, pattern: str, drop: bool, zone: str
) -> None:
    text = moment.strftime(pattern)
    if drop:
        text = text.replace("/0", "/").replace(" 0", " ")
    local = datetime.strptime(text, pattern).replace(tzinfo=ZoneInfo(zone))
    expected = (local.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    exists = local.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local.replace(
        tzinfo=None
    )
    read = reader(Time(field="t", format=pattern, zone=zone))
    if exists:
        assert read(text) == expected
    else:
        with pytest.raises(TimeProblemError, match="skipped"):
            read(text)


@given(st.text("0123456789/: -", max_size=18))
def test_what_strptime_refuses_is_refused(text: str) -> None:
    pattern = "%d/%m/%Y %H:%M"
    read = reader(Time(field="t", format=pattern, zone="UTC"))
    try:
        expected = datetime.strptime(text.strip(), pattern)
    except ValueError:
        with pytest.raises(TimeProblemError):
            read(text)
    else:
        assert read(text) == (expected - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
