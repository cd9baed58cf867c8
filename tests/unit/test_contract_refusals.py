"""What a contract may not say: each refusal names its line and its remedy, and repeats nothing of a value."""

from __future__ import annotations

import pytest

from schemas.contract import EXAMPLES, parse
from schemas.errors import ContractError
from schemas.text import read

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
VEHICLES = "{count: {min: 0, max: 256, per_unit: 1}}"

CASES: dict[str, tuple[str, str, str]] = {
    "unknown key": ("terms:", "colour: red\nterms:", "colour: this key is not known"),
    "unknown rule key": ("per_unit: 1}}", "per_person: 1}}", "not known"),
    "missing terms": ("terms: {", "# terms: {", "terms: this key is missing"),
    "no rule": ("observed_pct:   drop", "# observed_pct", "'observed_pct' has no rule"),
    "rule without field": ("observed_pct:   drop", "observed_pct: drop\n    speed: drop", "field 'speed'"),
    "unknown rule": ("observed_pct:   drop", "observed_pct: hide", "a rule is one of"),
    "epsilon zero": ("epsilon: 1.0", "epsilon: 0", "greater than 0"),
    "epsilon negative": ("epsilon: 1.0", "epsilon: -1", "greater than 0"),
    "epsilon infinite": ("epsilon: 1.0", "epsilon: .inf", "not a number"),
    "epsilon overflows": ("epsilon: 1.0", "epsilon: 1e999", "not a number"),
    "epsilon beyond all": ("epsilon: 1.0", "epsilon: 101", "nothing at all is promised"),
    "bound beyond all": ("max: 256", "max: 1e300", "not a number between"),
    "endless digits": ("max: 256", f"max: {'9' * 5000}", "not a number"),
    "epsilon text": ("epsilon: 1.0", "epsilon: small", "not a number"),
    "epsilon yes": ("epsilon: 1.0", "epsilon: true", "not a number"),
    "budget rounds to nothing": ("epsilon: 1.0", "epsilon: 0.000000001", "rounds to nothing"),
    "assumed without basis": ("    basis: A vehicle", "    # basis: A vehicle", "needs basis"),
    "assumed without attester": ("    attested_by:", "    # attested_by:", "needs basis"),
    "ledger without unit": ("held_by: assumed ", "held_by: ledger ", "cannot count units"),
    "unit but assumed": ("protects: vehicle", "protects: vehicle\n  unit: [detector]", "needs to be assumed"),
    "bounder": ("held_by: assumed ", "held_by: bounder ", "belongs to windows"),
    "presence": ("neighbours: values", "neighbours: presence", "cannot hide that an event exists"),
    "below unit-epoch: fields": (
        "of: [detector, interval_start]", "of: [interval_start]", "a vehicle is not protected",
    ),
    "below unit-epoch: time": ("length: day", "length: 5min", "a vehicle is not protected"),
    "epoch off the slots": ("length: day", "length: 7min", "whole number of time slots"),
    "key without field": ("key: detector", "key: lane", "'lane' is not a field"),
    "key dropped": ("    detector:       public", "    detector: drop", "must be readable"),
    "time without grid": ("{time: 5min}", "public", "needs a public grid"),
    "time of wrong type": ('{type: timestamp, column: "5 Minutes"}', "{type: string}", "must be a timestamp"),
    "no zone": (", zone: America/Los_Angeles", "", "has no %z"),
    "zone unknown": ("America/Los_Angeles", "America/Springfield", "IANA"),
    "format without year": ("%d/%m/%Y %H:%M", "%d/%m %H:%M", "loses the date"),
    "format with half a day": ("%d/%m/%Y %H:%M", "%d/%m/%Y %I:%M", "confuses morning"),
    "min above max": ("min: 0, max: 256", "min: 256, max: 0", "min must be smaller"),
    "range too large": ("max: 256", "max: 65536", "1 to 65535"),
    "more than the range": ("per_unit: 1}}", "per_unit: 300}}", "more than the range"),
    "count of a text": ("vehicles:       {type: int", "vehicles: {type: string", "does not fit"),
    "metric by the back door": (
        VEHICLES, "{number: {min: 0, max: 256, sensitivity: 4}}", "metric privacy",
    ),
    "nothing noised": (VEHICLES, "drop", "nothing is protected"),
    "map of a dropped field": ("intensity:    vehicles", "intensity: observed_pct", "cannot be shared"),
    "map of an unknown field": ("intensity:    vehicles", "intensity: cars", "no field 'cars'"),
    "map without time": ("    dateObserved: interval_start\n", "", "no attribute carries the event time"),
    "open braces": ("{detector}:{interval_start}", "{detector", "braces"),
    "bad price": ("0 EUR", "free", "not a price"),
    "bad purpose": ("[traffic-forecasting]", "[]", "at least 1 item"),
    "bad duration": ("for: 90d", "for: soon", "not a duration"),
    "endless duration": ("raw: 7d", "raw: 9999999999y", "not a duration up to 1000y"),
    "epoch of seconds": ("length: day", "length: 1s", "at least a minute"),
    "the unit is in the data": ("protects: vehicle", "protects: detector", "need not be assumed"),
    "bad name": ("contract: traffic.detector-counts ", "contract: Traffic Counts ", "contract:"),
    "bad version": ("version: 1.0.0", "version: one", "version:"),
    "major zero": ("version: 1.0.0", "version: 0.1.0", "version:"),
    "bad default": ("default: d-401190", "default: 401190", "does not fit type string"),
    "twice": ("version: 1.0.0", "version: 1.0.0\nversion: 1.0.1", "stands twice"),
    "unknown mode": ("version: 1.0.0", "version: 1.0.0\nmode: federated", "mode:"),
    "an odd tag": ("version: 1.0.0", "version: !!timestamp x", "not what its tag says"),
    "an odder tag": ("version: 1.0.0", "version: !!bool perhaps", "not what its tag says"),
    "an empty number": ("version: 1.0.0", "version: !!float ''", "not what its tag says"),
    "no such character": ("about: Vehicles", 'about: "\\UFFFFFFFF" # ', "an escape out of range"),
    "endless version of YAML": ("# Vehicle counts", f"%YAML 1.{'9' * 5000}\n---\n# ", "out of range"),
    "a directive twice": ("%d/%m/%Y %H:%M", "%d/%m/%Y %Y", "not a strptime pattern"),
    "a path with a zero byte": ("../../producers/samples/pems.parquet", '"a\\0b"', "no file can have this path"),
    "nobody's home": ("../../producers/samples/pems.parquet", "~nobody-at-all/x", "no file can have this path"),
    "endless default": (
        '{type: int, column: "% Observed"}', "{type: int, default: 9223372036854775808}", "longer than 64 bits"
    ),
    "infinite default": ('{type: int, column: "% Observed"}', "{type: float, default: 1e999}", "not finite"),
    "endless constant": ("intensity:    vehicles", "i: {constant: 9223372036854775808}", "longer than 64 bits"),
    "infinite constant": ("intensity:    vehicles", "i: {constant: 1e999}", "not finite"),
    "a record named twice": (
        "intensity:    vehicles",
        "a: {nest: {b: {nest: {c: vehicles}}}}\n    a_b: {nest: {c: vehicles}}",
        "two records would have the name 'a_b'",
    ),
    "a list's record named twice": (
        "intensity:    vehicles",
        "a: {list: {nest: {c: vehicles}}}\n    a_item: {nest: {c: vehicles}}",
        "two records would have the name 'a_item'",
    ),
    "a record named as the model": (
        "intensity:    vehicles", "TrafficFlowObserved: {nest: {a: vehicles}}", "the name 'TrafficFlowObserved'"
    ),
    "a word scaled": ("intensity:    vehicles", "i: {list: {from: detector, scale: 2}}", "'detector' is no number"),
    "a time scaled": ("intensity:    vehicles", "i: {nest: {a: {from: interval_start}}}", "is no number"),
    "bad yaml": ("event:", "event: {", "not readable as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_with_line_and_remedy(case: str) -> None:
    old, new, message = CASES[case]
    assert old in COUNTS
    with pytest.raises(ContractError) as caught:
        parse(COUNTS.replace(old, new, 1), EXAMPLES, "mine.yaml")
    assert message in caught.value.message
    assert caught.value.message.startswith("mine.yaml:")
    assert caught.value.message.split(":")[1].isdigit()
    assert caught.value.remedy


def test_the_line_is_that_of_the_key() -> None:
    text = COUNTS.replace("epsilon: 1.0", "epsilon: -1")
    line = next(i for i, one in enumerate(text.splitlines(), 1) if "epsilon: -1" in one)
    with pytest.raises(ContractError, match=f"mine.yaml:{line}: privacy.epsilon"):
        parse(text, EXAMPLES, "mine.yaml")


def test_every_problem_is_told_at_once() -> None:
    text = COUNTS.replace("epsilon: 1.0", "epsilon: -1").replace("neighbours: values", "neighbours: presence")
    with pytest.raises(ContractError) as caught:
        parse(text, EXAMPLES)
    assert len(caught.value.message.splitlines()) == 2


def test_inputs_are_never_repeated() -> None:
    with pytest.raises(ContractError) as caught:
        parse(COUNTS.replace("for: 90d", "for: my-secret"), EXAMPLES)
    assert "my-secret" not in str(caught.value)


def test_a_personal_reading_moves_by_all_of_its_range() -> None:
    text = (
        COUNTS.replace("observed_pct:   {type: int", "plate: {type: string}\n    observed_pct: {type: int")
        .replace("protects: vehicle", "protects: vehicle\n  unit: [plate]")
        .replace("held_by: assumed ", "held_by: ledger ")
        .replace("observed_pct:   drop", "observed_pct: drop\n    plate: drop")
    )
    with pytest.raises(ContractError, match="metric privacy"):
        parse(text, EXAMPLES)
    metric = parse(text.replace("per_unit: 1}", "per_unit: 1, metric: true}"), EXAMPLES)
    assert any("Values d apart" in warning for warning in metric.warnings)
    parse(text.replace(VEHICLES, "{number: {min: 0, max: 256}}"), EXAMPLES)


def test_a_float_needs_a_binary_step() -> None:
    text = COUNTS.replace("vehicles:       {type: int", "vehicles: {type: float")
    number = "{number: {min: 0, max: 100, step: STEP, per_unit: 1}}"
    with pytest.raises(ContractError, match="no exact binary form"):
        parse(text.replace(VEHICLES, number.replace("STEP", "0.1")), EXAMPLES)
    parse(text.replace(VEHICLES, number.replace("STEP", "0.125")), EXAMPLES)


def test_a_public_field_of_the_same_people_is_warned_of() -> None:
    text = COUNTS.replace("observed_pct:   drop ", "observed_pct: public ").replace(
        "intensity:    vehicles", "intensity: vehicles\n    occupancy: observed_pct"
    )
    assert "same vehicles" in parse(text, EXAMPLES).warnings[0]
    silent = text.replace("observed_pct: public ", "observed_pct: {public: {because: state of the device}} ")
    assert parse(silent, EXAMPLES).warnings == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "a: &a [*a]", "\x00", "? [a]: b", "- 1", "[" * 9_000, "a: !!python/object:os.system x"]
)
def test_not_a_contract(text: str) -> None:
    with pytest.raises(ContractError):
        parse(text)


def test_a_column_that_is_noised_leaves_in_no_other_way() -> None:
    twin = COUNTS.replace('column: "% Observed"', 'column: "Lane 1 Flow (Veh/5 Minutes)"')
    parse(twin, EXAMPLES)  # the second is dropped
    for rule in ("public", "{public: {because: it is}}", "pseudonym"):
        with pytest.raises(ContractError, match="same source column as 'vehicles'"):
            parse(twin.replace("observed_pct:   drop", f"observed_pct: {rule}"), EXAMPLES)


@pytest.mark.parametrize("name", ["person", "person_id", "PersonNo", "person_key"])
def test_a_unit_in_the_data_is_not_assumed_away(name: str) -> None:
    """Else each of its 288 records a day would be noised as if there were two."""
    text = COUNTS.replace("protects: vehicle", "protects: person").replace("observed_pct", name)
    for rule in ("drop", "public", "pseudonym"):
        with pytest.raises(ContractError, match="need not be assumed"):
            parse(text.replace(f"{name}:   drop", f"{name}: {rule}"), EXAMPLES)


def test_a_unit_is_text_or_a_whole_number() -> None:
    """0.0 and -0.0 are equal numbers and two texts: one unit would have two budgets."""
    text = COUNTS.replace("held_by: assumed ", "held_by: ledger ")
    text = text.replace("protects: vehicle", "protects: vehicle\n  unit: [observed_pct]")
    text = text.replace("per_unit: 1}", "per_unit: 256}")
    parse(text, EXAMPLES)
    for type_ in ("float", "bool"):
        with pytest.raises(ContractError, match="cannot name a unit"):
            parse(text.replace('{type: int, column: "% Obs', f'{{type: {type_}, column: "% Obs'), EXAMPLES)


def warned(text: str) -> str:
    return "\n".join(parse(text, EXAMPLES).warnings)


def test_a_missing_aggregate_is_as_good_as_none() -> None:
    """NULL is what a database sums up where nobody was: with another default one more vehicle moves all."""
    vehicles = '{type: int, column: "Lane 1 Flow (Veh/5 Minutes)"'
    assert "missing value becomes 9, not 0" in warned(
        COUNTS.replace("per_unit: 1}", "per_unit: 1, default: 9}")
    )
    assert "missing value becomes 7, not 0" in warned(COUNTS.replace(vehicles, vehicles + ", default: 7"))
    assert "missing value becomes -9, not 0" in warned(COUNTS.replace("min: 0,", "min: -9,"))
    for good in ("per_unit: 1, default: 0}", "per_unit: 256, default: 9}"):
        assert "missing value" not in warned(COUNTS.replace("per_unit: 1}", good))
    assert "missing value" not in warned(COUNTS.replace(vehicles, vehicles + ", default: 0"))
    assert "missing value" not in warned(COUNTS.replace("min: 0,", "min: 9,"))


def test_what_a_pseudonym_tells_is_said() -> None:
    key = COUNTS.replace("detector:       public", "detector: pseudonym")
    assert "no unit is named" in warned(key)
    assert "partitions" not in warned(key)
    assert "one of 12 partitions by a public hash" in warned(key + "partitions: 12\n")
    other = COUNTS.replace("observed_pct:   drop", "observed_pct: pseudonym")
    assert "not noise" in warned(other)


def test_a_second_public_time_is_warned_of() -> None:
    text = COUNTS.replace("observed_pct:   {type: int", "observed_pct:   {type: timestamp")
    text = text.replace("observed_pct:   drop", "observed_pct: {time: 1h}")
    assert "public to 1 h" in warned(text)


def test_a_number_is_decimal_whatever_it_begins_with() -> None:
    """YAML 1.1 took 0100 for 64: a bound that nobody meant."""
    assert read("a: 0100\nb: -07\nc: +3", "n")[0] == {"a": 100, "b": -7, "c": 3}
