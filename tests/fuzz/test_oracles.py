"""The oracles that every target shares, shown to say no; and what is read of libFuzzer's lines."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.campaign import Outcome
from tests.fuzz.child import Findings, place
from tests.fuzz.oracles import Finding, Watch, require
from tests.fuzz.targets import Target

LIMITS = Target((), 100, 0.05, 0.0, 40)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch(LIMITS)  # its hook stays, and hears nothing between runs


def burn(_: bytes) -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


def hoard(_: bytes) -> None:
    held = [bytes(1 << 20) + b"x" for _ in range(400)]
    require(len(held) == 400, "gone")


def unpickle(_: bytes) -> None:
    pickle.loads(pickle.dumps(Path))


def write(_: bytes) -> None:
    try:
        Path("/no/such/folder/file").write_bytes(b"x")
    except OSError:
        return


@pytest.mark.parametrize(
    ("run", "said"),
    [(burn, "of CPU"), (hoard, "of memory"), (unpickle, "pickle.find_class"), (write, "open for writing")],
)
def test_what_no_input_may_cost_or_do_is_found(watch: Watch, run: Callable[[bytes], None], said: str) -> None:
    with pytest.raises(Finding, match=said):
        watch.run(run, b"x")
    watch.run(lambda _: None, b"x")


def test_what_a_target_raises_passes_through(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError):
        watch.run(lambda data: require(1 // len(data) > 0, "never"), b"")


def test_one_defect_is_one_finding_and_its_shortest_input_is_kept(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for data in (b"long enough", b"short", b"longer again"):
        try:
            require(False, "no")
        except Finding as problem:
            findings.keep(problem, data)
            name = place(problem)
    outcome = Outcome("codec", tmp_path)
    assert outcome.findings == [f"finding-{name}"]
    assert (tmp_path / f"finding-{name}").read_bytes() == b"short"
    assert "require" in (tmp_path / f"finding-{name}.txt").read_text()


def test_what_libfuzzer_says_is_counted(tmp_path: Path) -> None:
    outcome = Outcome("codec", tmp_path)
    outcome.hear("#1024\tpulse  cov: 213 ft: 667 corp: 69/1230b lim: 29 exec/s: 204 rss: 167Mb")
    assert (outcome.executions, outcome.edges, outcome.features, outcome.corpus) == (1024, 213, 667, 69)
    outcome.hear("stat::number_of_executed_units: 3246")
    outcome.hear("stat::peak_rss_mb:              168")
    assert (outcome.executions, outcome.peak_rss_mb) == (3246, 168)
    (tmp_path / "crash-0123").write_bytes(b"x")
    assert outcome.report()["crashes"] == 1
