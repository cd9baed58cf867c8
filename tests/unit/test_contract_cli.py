"""sluice contract new | check | try, called as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.contract import EXAMPLES, load
from schemas.errors import ConfigurationError, ContractError
from schemas.rules import Count, Number
from sluice.cli.contract import app
from sluice.cli.interview import split
from sluice.contracts.draft import Bounds
from sluice.contracts.guess import look
from sluice.contracts.law import strength
from sluice.contracts.promise import lines, odds

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
PULSE = "pat,when,pulse,temp,ward\n" + "".join(
    f"{'alice' if i % 2 else 'bob'},2020-01-01T{i // 60:02}:{i % 60:02}:00Z,{60 + i % 9},36.{i % 10},a\n"
    for i in range(40)
)


def run(*words: str | Path, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_check_prints_the_promise() -> None:
    told = {line.word: line.text for line in lines(load("traffic.detector-counts"))}
    assert told["PROTECTED"].startswith("one vehicle in one epoch of 1 d (its at most 2 records)")
    assert "x2.72 (epsilon 1.0)" in told["PROMISE"]
    assert "10: epsilon 5, x148; 40: epsilon 20, no promise; a year" in told["COUNTED"]
    assert "at most twice a day" in told["ASSUMED"]
    assert "Traffic management" in told["ASSUMED"]
    assert told["PUBLIC"].startswith(
        "detector (the key), interval_start (to 5 min), and that a record exists"
    )
    assert "bias +0.96 / +0 / -0.96; on a bound 62% / 0% / 62%" in told["NOISED"]
    assert "until the noise key leaks" in told["KIND"]
    output = run("check", "traffic.detector-counts")
    for word in (*told, "NOT READ", "# Lane Points"):
        assert word in output


def test_check_says_what_diffprivlib_does_not_guarantee() -> None:
    output = " ".join(run("check", "traffic.detector-counts-diffprivlib").split())
    assert "not proved" in output
    assert "delta 0" not in output


def test_check_as_json() -> None:
    told: dict[str, Any] = json.loads(run("check", "traffic.detector-counts", "--json"))
    assert told["epsilon"] == "1.0"
    assert told["not_read"] == ["# Lane Points"]
    assert told["fields"]["vehicles"]["bias"][0] == pytest.approx(0.9595, abs=1e-3)
    assert {line["word"] for line in told["lines"]} >= {
        "PROTECTED",
        "PROMISE",
        "COUNTED",
        "ASSUMED",
        "PUBLIC",
        "KIND",
    }


def test_check_without_its_source_still_judges(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(COUNTS)
    told = json.loads(run("check", tmp_path / "mine.yaml", "--json"))
    assert told["not_read"] is None
    assert "does not exist" in told["source"]


def test_check_refuses(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(COUNTS.replace("epsilon: 1.0", "epsilon: 0"))
    with pytest.raises(ContractError, match="greater than 0"):
        run("check", tmp_path / "mine.yaml")


def test_the_figures_of_the_specification() -> None:
    """docs/privacy.md: with D = R and epsilon 1 clamped outputs sit on a bound 61 % of the time and 0 comes out
    at .32 R; a margin of 4 R brings that to .006 R."""
    for output, bias, on_bounds in (("clamp", 0.32, 0.61), ("wide", 0.006, None)):
        rule = Number.model_validate({"min": 0, "max": 100, "output": output})
        rule._nano_epsilon = 10**9
        found = strength(rule)
        assert found.bias[0] / 100 == pytest.approx(bias, abs=0.005)
        if on_bounds is not None:
            assert found.on_bounds[1] == pytest.approx(on_bounds, abs=0.01)
    counts = load("traffic.detector-counts").privacy.fields["vehicles"]
    assert isinstance(counts, Count)
    assert strength(counts).bias[1] == pytest.approx(0, abs=1e-9)


def test_odds_in_words() -> None:
    assert [odds(e) for e in (0.5, 1.0, 10.0, 40.0)] == ["x1.65", "x2.72", "x22,026", "no promise"]


def test_try_shows_ten_rows_and_the_loss() -> None:
    told = json.loads(run("try", "traffic.detector-counts", "--json"))
    assert told["events"] == told["shared"] == 12_096
    assert len(told["rows"]) == 10
    assert told["rows"][0]["raw"]["vehicles"] == 12
    assert "observed_pct" not in told["rows"][0]["shared"]
    (loss,) = told["loss"]
    assert 6.5 < loss["mae_truth"] < 7.2
    assert 0 < loss["more"] < 0.04  # 1.2 % in the mean
    assert loss["mae_shared"] < loss["mae_persistence"]


def test_try_in_words(tmp_path: Path) -> None:
    output = " ".join(run("try", "traffic.detector-counts", "--rows", "500").split())
    for words in (
        "keys that are thrown away",
        "raw: stays here",
        "shared: leaves",
        "x2.72",
        "keep it on this side",
    ):
        assert words in output


def test_new_asks_five_questions(tmp_path: Path) -> None:
    (tmp_path / "pulse.csv").write_text(PULSE)
    out = tmp_path / "pulse.yaml"
    output = run(
        "new", tmp_path / "pulse.csv", "--out", out, "--name", "ward.pulse",
        typed="ward\nwhen\nPatient\npat\n24\npulse:20:250 temp:30:45\n",
    )  # fmt: skip
    assert [f"{n}." in output for n in range(1, 6)] == [True] * 5
    written = load(out)
    assert written.privacy.unit == ("pat",)
    assert written.privacy.fields["pat"].kind == "drop"
    temp = written.privacy.fields["temp"]
    assert isinstance(temp, Number)
    assert (temp.step.as_integer_ratio()[1], temp.sensitivity) == (16, temp.range)
    told = " ".join(run("check", out).split())
    assert "wider than the range" in told
    assert "record 25 of one patient (pat) is denied" in told
    assert json.loads(run("try", out, "--json"))["shared"] == 40


def test_new_without_questions(tmp_path: Path) -> None:
    pems = Path(__file__).parents[3] / "shared" / "data" / "traffic" / "pems_train.csv"
    if not pems.exists():
        pytest.skip("the traffic data are not on this machine")
    out = tmp_path / "counts.yaml"
    flags: dict[str, str | Path] = {
        "--out": out, "--name": "my.counts", "--key": "-", "--time": "5 Minutes", "--zone": "America/Los_Angeles",
        "--protects": "vehicle", "--max": "2", "--basis": "out and back", "--attested-by": "the city",
        "--private": "Lane 1 Flow (Veh/5 Minutes):0:256:1",
    }  # fmt: skip
    run("new", pems, "--no-input", *(word for flag in flags.items() for word in flag))
    written = load(out)
    assert written.event.time.format == "%d/%m/%Y %H:%M"
    assert written.warnings == ()
    assert json.loads(run("try", out, "--json"))["shared"] == 7_776


def test_new_names_the_missing_flag_and_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "pulse.csv").write_text(PULSE)
    with pytest.raises(ConfigurationError, match="--protects is needed"):
        run("new", tmp_path / "pulse.csv", "--no-input")
    (tmp_path / "old.yaml").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"):
        run(
            "new", tmp_path / "pulse.csv", "--no-input", "--protects", "patient", "--unit", "pat", "--max", "9",
            "--private", "pulse:20:250", "--out", tmp_path / "old.yaml",
        )  # fmt: skip
    assert (tmp_path / "old.yaml").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="cannot be told"):
        run("new", tmp_path / "pulse.xls")


def test_types_are_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "when,odd when,a,b,c,1 d (x)\n"
        "2020-01-02 00:15,31/12/2020 10:00,1,1.5,x,\n"
        "2020-01-02 00:30,01/01/2021 10:30,2,nan,y,\n"
    )
    found = look(tmp_path / "a.csv", "csv")
    assert [(c.name, c.type) for c in found] == [
        ("when", "timestamp"), ("odd_when", "timestamp"), ("a", "int"), ("b", "float"), ("c", "string"),
        ("c_1_d", "string"),
    ]  # fmt: skip
    assert (found[0].format, found[0].grid, found[1].format) == ("iso8601", "15min", "%d/%m/%Y %H:%M")


@pytest.mark.parametrize("text", ["pulse", "pulse:1", "pulse:a:b", "pulse:1:2:3:4x", ":1:2"])
def test_bounds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="COLUMN:MIN:MAX"):
        Bounds.of(text)


def test_bounds_keep_colons_of_the_column() -> None:
    assert Bounds.of("a:b:0:10").column == "a:b"


def counts(tmp_path: Path, **cells: str) -> Path:
    """600 counts of one series, every five minutes; `time`, `vehicles`: the cell of line 9 instead."""
    lines = ["time,site,lane,vehicles"]
    for i in range(600):
        time = f"2024-05-{1 + i // 288:02} {i % 288 // 12:02}:{i % 12 * 5:02}"
        odd = cells if i == 7 else {}
        lines.append(f"{odd.get('time', time)},s,{'ab'[i % 2]},{odd.get('vehicles', str(i % 40))}")
    (tmp_path / "counts.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "counts.csv"


def new(source: Path, *more: str) -> str:
    flags = {
        "--out": source.with_suffix(".yaml"), "--name": "road.counts", "--protects": "vehicle", "--max": "2",
        "--basis": "out and back", "--attested-by": "the city", "--private": "vehicles:0:256:1",
    }  # fmt: skip
    words = [str(word) for flag, value in flags.items() if flag not in more for word in (flag, value)]
    key = () if "--key" in more else ("--key", "site")
    return run("new", source, "--no-input", *words, *key, *more)


def test_new_takes_a_column_with_one_cell_that_is_no_number(tmp_path: Path) -> None:
    source = counts(tmp_path, vehicles="n/a")
    told = new(source)
    assert "1 of 600 cells looked at in 'vehicles' are no numbers, the first in line 9" in told
    assert "n/a" not in told
    written = load(source.with_suffix(".yaml"))
    assert isinstance(written.privacy.fields["vehicles"], Count)
    assert json.loads(run("try", source.with_suffix(".yaml"), "--json"))["shared"] == 600


def test_new_says_where_a_column_holds_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="600 of 600 cells looked at are none, the first in line 2"):
        new(counts(tmp_path), "--private", "lane:0:9")


def test_one_bad_time_changes_neither_zone_nor_grid(tmp_path: Path) -> None:
    source = counts(tmp_path, time="soon")
    told = new(source, "--zone", "Europe/Berlin")
    assert "1 of 600 cells looked at in 'time' cannot be read as times" in told
    assert "soon" not in told
    text = source.with_suffix(".yaml").read_text()
    assert "zone: Europe/Berlin" in text
    assert "{time: 5min}" in text
    source.with_suffix(".yaml").unlink()
    source.write_text(source.read_text().replace("08:00", "08:03"))
    assert "{time: 5min}" in (new(source), source.with_suffix(".yaml").read_text())[1]


def test_new_refuses_a_time_column_without_times(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not hold times"):
        new(counts(tmp_path), "--time", "lane")


def test_a_key_that_does_not_tell_series_apart(tmp_path: Path) -> None:
    source = tmp_path / "counts.csv"
    rows = [f"2024-05-01 {i // 12:02}:{i % 12 * 5:02},s,{lane},{i}" for i in range(100) for lane in "ab"]
    source.write_text("\n".join(["time,site,lane,vehicles", *rows]))
    with pytest.raises(ConfigurationError, match="one column"):
        new(source, "--key", "site", "--key", "lane")
    words = "100 of 200 events share site and time slot with another one and are denied"
    told = new(source)
    assert words in told
    assert "site-lane" in told
    assert words in " ".join(run("try", source.with_suffix(".yaml")).split())


def test_try_adds_up_and_says_why_rows_are_rejected(tmp_path: Path) -> None:
    source = counts(tmp_path, time="soon")
    assert "WARNING" not in new(source)
    out = source.with_suffix(".yaml")
    assert "600 events: 599 shared, 0 denied, 1 rejected (time-unreadable)." in run("try", out)
    told = json.loads(run("try", out, "--json"))
    assert told["events"] == told["shared"] + sum(told["denied"].values()) + told["rejected"]
    assert told["rejected_by_reason"] == {"time-unreadable": 1}
    output = run("check", out)
    assert "e-1" not in output
    assert output.splitlines()[0].strip() == "road.counts 1.0.0 of did:web:owner.example"


def test_an_interview_asks_again_and_speaks_of_no_flags(tmp_path: Path) -> None:
    source = tmp_path / "counts.csv"
    source.write_text(counts(tmp_path).read_text().replace("vehicles", "lane 1 flow"))
    out = source.with_suffix(".yaml")
    answers = [
        "place", "site", "lane", "time", "Mars", "Europe/Berlin", "Ein Auto!", "Vehicle", "nobody", "-", "many", "0",
        "2", " ", "out and back", "the city", "lane 1 flow", "lane:0:9", "lane 1 flow:9:0", "lane 1 flow:0:256:1",
    ]  # fmt: skip
    told = run("new", source, "--out", out, typed="\n".join(answers) + "\n")
    assert "--" not in told
    for words in (
        "no such column",
        "does not hold times",
        "no such time zone",
        "no whole number",
        "no range",
    ):
        assert words in told
    assert load(out).event.time.zone == "Europe/Berlin"
    assert isinstance(load(out).privacy.fields["lane_1_flow"], Count)
    with pytest.raises(ConfigurationError, match="exists"):
        run("new", source, "--out", out, typed="")  # before the first question


def test_bounds_in_one_line() -> None:
    assert split("a:0:1 lane 1 flow:0:9:1  c:-1:1") == ["a:0:1", "lane 1 flow:0:9:1", "c:-1:1"]
    assert split("a:0:1 b") == ["a:0:1", "b"]


@pytest.mark.parametrize(("bad", "type_"), [(1, "timestamp"), (2, "string")])
def test_nine_of_ten_cells_decide(tmp_path: Path, bad: int, type_: str) -> None:
    cells = [f"2024-05-01T{hour:02}:00:00Z" for hour in range(10 - bad)] + ["2024-05-01"[:bad]] * bad
    (tmp_path / "a.csv").write_text("\n".join(["when,n", *(f"{cell},{i}" for i, cell in enumerate(cells))]))
    (when, n) = look(tmp_path / "a.csv", "csv")
    assert (when.type, when.zoned, n.type) == (type_, type_ == "timestamp", "int")


def test_a_time_without_a_zone_among_many_with_one_does_not_fit(tmp_path: Path) -> None:
    source = counts(tmp_path)
    lines = source.read_text().splitlines()
    zoned = [line.replace(",s,", "Z,s,") for line in lines[:-1]]
    source.write_text("\n".join([*zoned, lines[-1]]))
    assert "1 of 600 cells looked at in 'time' cannot be read as times like the others" in new(source)
    assert "zone:" not in source.with_suffix(".yaml").read_text()
    assert json.loads(run("try", source.with_suffix(".yaml"), "--json"))["rejected"] == 1
