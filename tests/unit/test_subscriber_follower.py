"""What a subscriber takes and what it refuses; the model in use survives every refusal."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.releases import OTHER, SIGNER, SOURCE, Made, context, graph, make
from trainers.follower import ENTRY_BYTES, Chunks, Follower
from trainers.manifest import CHUNK_BYTES, CONTEXT, FILE_LIMIT, GRAPH, RefusedError, Terms
from trainers.pins import Pin, open_pin, save_pin
from trainers.serving import UnknownKeyError
from trainers.signing import open_signer
from trainers.tensors import dump

PINNED = Pin(SIGNER.public, "argument")


def offer(follower: Follower, made: Made, chunks: dict[str, bytes] | None = None) -> None:
    manifest = follower.consider(made.value)
    follower.take(manifest, made.chunks if chunks is None else chunks)


def refused(follower: Follower, made: Made, chunks: dict[str, bytes] | None = None) -> str:
    before = follower.model
    with pytest.raises(RefusedError) as caught:
        offer(follower, made, chunks)
    assert follower.model is before
    return caught.value.reason


@pytest.fixture
def follower() -> Follower:
    follower = Follower("toy", PINNED)
    offer(follower, make(5, 100))
    return follower


def test_a_forecast_says_all_that_matters(follower: Follower) -> None:
    assert follower.model is not None
    forecast = follower.model.forecast("b")
    assert forecast.value == 5.5  # the mean of 4, 5, 6, 7
    assert forecast.interval == (3.5, 7.5)
    assert forecast.level == 0.9
    assert forecast.as_of == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=500)
    assert forecast.target - forecast.as_of == timedelta(minutes=5)
    assert (forecast.version, forecast.epsilon, forecast.protects) == (5, Decimal("1.0"), "vehicle")
    assert json.loads(forecast.json())["interval"] == [3.5, 7.5]
    assert str(forecast) == (
        "b: 5.5 [3.5, 7.5] (90%) for 1970-01-01 08:25Z, as of 1970-01-01 08:20Z, "
        "toy v5, epsilon 1.0 per vehicle"
    )


def test_an_unknown_key_is_told_with_known_ones(follower: Follower) -> None:
    assert follower.model is not None
    with pytest.raises(UnknownKeyError, match="no key 'zz'") as caught:
        follower.model.forecast("zz")
    assert caught.value.remedy == "Known: a, b."


def test_newer_releases_replace_it(follower: Follower) -> None:
    offer(follower, make(6, 101))
    assert follower.model is not None
    assert follower.model.manifest.version == 6


def test_old_and_repeated_releases_are_refused(follower: Follower) -> None:
    assert refused(follower, make(5, 100)) == "not-newer"
    assert refused(follower, make(4, 90)) == "not-newer"
    assert refused(follower, make(6, 99)) == "not-newer"
    assert refused(follower, make(6, 100)) == "not-newer"


def test_foreign_signers_and_tasks_are_refused(follower: Follower) -> None:
    assert refused(follower, make(6, 101, signer=OTHER)) == "signer-unknown"
    assert refused(follower, make(6, 101, task="other")) == "wrong-task"


def test_a_missing_chunk_is_refused(follower: Follower) -> None:
    made = make(6, 101)
    short = {key: piece for key, piece in made.chunks.items() if f"/{GRAPH}/" not in key}
    assert refused(follower, made, short) == "chunk-missing"


def test_a_tampered_chunk_is_refused(follower: Follower) -> None:
    made = make(6, 101)
    bad = {key: piece[:-1] + bytes([piece[-1] ^ 1]) for key, piece in made.chunks.items()}
    assert refused(follower, made, bad) == "chunk-damaged"


NAN_CONTEXT = dump(
    {"values": np.full((2, 4), math.nan, np.float32), "slot": np.full(2, 9)}, {"keys": ["a", "b"]}
)
NO_SLOT = dump({"values": np.zeros((2, 4), np.float32)}, {"keys": ["a", "b"]})
OTHER_SHAPE = dump({"values": np.zeros((2, 3), np.float32), "slot": np.full(2, 9)}, {"keys": ["a", "b"]})
NO_INPUT = dump({"others": np.zeros((2, 4), np.float32), "slot": np.full(2, 9)}, {"keys": ["a", "b"]})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (GRAPH, b"not a graph", "graph-unusable"),
        (GRAPH, graph()[:-40], "graph-unusable"),
        (GRAPH, graph(spread=-1.0), "graph-unusable"),  # quantiles that fall
        (GRAPH, graph(bias=math.nan), "graph-unusable"),
        (CONTEXT, b"", "context-unusable"),
        (CONTEXT, context()[:-4], "context-unusable"),
        (CONTEXT, context(("a",)), "context-unusable"),  # the manifest says two keys
        (CONTEXT, context(("a", "a")), "context-unusable"),
        (CONTEXT, NO_SLOT, "context-unusable"),
        (CONTEXT, NO_INPUT, "graph-unusable"),
        (CONTEXT, OTHER_SHAPE, "graph-unusable"),
        (CONTEXT, NAN_CONTEXT, "graph-unusable"),
    ],
)
def test_files_that_are_signed_but_useless_are_refused(
    follower: Follower, name: str, content: bytes, reason: str
) -> None:
    assert refused(follower, make(6, 101, files={name: content})) == reason
    offer(follower, make(7, 102))


YEAR_20000 = context(slot=(20_000 - 1970) * 365 * 288)
SLOT_OF_PAIRS = dump(
    {"values": np.zeros((2, 4), np.float32), "slot": np.zeros((2, 2), np.int64)}, {"keys": ["a", "b"]}
)


@pytest.mark.parametrize(
    "more",
    [
        {"contracts": (Terms("traffic", "1.0.0", "did:web:x", "vehicle", "one", "ab" * 32),)},
        {"contracts": (Terms("traffic", "1.0.0", "did:web:x", "vehicle", "NaN", "ab" * 32),)},
        {"contracts": (Terms("traffic", "1.0.0", "did:web:x", "vehicle", "-1", "ab" * 32),)},
        {"files": {CONTEXT: YEAR_20000}},
        {"files": {CONTEXT: SLOT_OF_PAIRS}},
    ],
)
def test_a_signed_release_of_nonsense_is_refused_and_not_the_end_of_the_subscription(
    follower: Follower, more: dict[str, Any]
) -> None:
    """An epsilon that is no number ended the thread: with the next one, no release came any more."""
    assert refused(follower, make(6, 101, **more)) == "context-unusable"
    offer(follower, make(7, 102))


def test_levels_that_do_not_fit_the_graph_are_refused(follower: Follower) -> None:
    assert refused(follower, make(6, 101, levels=(0.05, 0.95))) == "graph-unusable"
    assert refused(follower, make(6, 101, experts=("a", "b"))) == "graph-unusable"
    for levels in (
        (0.95, 0.5, 0.05),
        (0.0, 0.5, 0.95),
        (0.05, 0.5, 2.0),
        (0.05, float("nan"), 0.95),
        (0.5,) * 3,
    ):
        assert refused(follower, make(6, 101, levels=levels)) == "graph-unusable"


def test_the_first_signer_is_trusted_and_then_pinned() -> None:
    follower = Follower("toy", Pin(None, "first-use"))
    offer(follower, make(1, 10, signer=OTHER))
    assert follower.pin.public == OTHER.public
    assert refused(follower, make(2, 11)) == "signer-unknown"


def test_a_refused_release_is_not_trusted() -> None:
    follower = Follower("toy", Pin(None, "first-use"))
    assert refused(follower, make(1, 10, signer=OTHER), {}) == "chunk-missing"
    assert follower.pin.public is None


def test_a_restarted_subscriber_takes_the_same_release_again_but_no_older(tmp_path: Path) -> None:
    follower = Follower("toy", PINNED)
    offer(follower, make(5, 100))
    assert save_pin(tmp_path, "toy", follower.pin)
    pin = open_pin(tmp_path, "toy")
    assert (pin.origin, pin.version) == ("remembered", 5)
    again = Follower("toy", pin)
    assert refused(again, make(4, 90)) == "not-newer"
    assert refused(again, make(5, 101)) == "not-newer"  # another release of that number
    offer(again, make(5, 100))
    assert refused(again, make(5, 100)) == "not-newer"


def test_on_another_cluster_the_order_begins_anew_but_the_signer_stays(tmp_path: Path) -> None:
    """Which cluster it is, the signed sources say: nobody else can send a subscriber back."""
    follower, elsewhere = Follower("toy", PINNED), ("cluster-b", *SOURCE[1:])
    offer(follower, make(5, 100))
    assert refused(follower, make(1, 10, signer=OTHER, sources={elsewhere: 10})) == "signer-unknown"
    offer(follower, make(1, 10, sources={elsewhere: 10}))
    assert save_pin(tmp_path, "toy", follower.pin)
    follower = Follower("toy", open_pin(tmp_path, "toy"))
    assert refused(follower, make(4, 90)) == "not-newer"  # an old one of the first cluster
    assert refused(follower, make(5, 100)) == "not-newer"
    assert refused(follower, make(2, 9, sources={elsewhere: 9})) == "not-newer"
    offer(follower, make(2, 11, sources={elsewhere: 11}))
    offer(follower, make(6, 101))


def test_where_a_pin_comes_from(tmp_path: Path) -> None:
    assert open_pin(None, "toy").origin == "first-use"
    assert open_pin(tmp_path, "toy") == Pin(None, "first-use")
    own = open_signer(tmp_path, "toy").public
    assert open_pin(tmp_path, "toy") == Pin(own, "trainer")
    assert open_pin(tmp_path, "toy", OTHER.public) == Pin(OTHER.public, "argument")
    assert open_pin(None, "toy", tmp_path / "signers" / "toy.pub").public == own
    with pytest.raises(ConfigurationError, match="32 bytes"):
        open_pin(None, "toy", b"short")
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "toy.json").write_text("{")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_pin(tmp_path, "toy")


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not save_pin(tmp_path / "file", "toy", PINNED)


def test_waiting_chunks_are_bounded_and_cleared() -> None:
    chunks, made = Chunks(limit=3 * (30 + ENTRY_BYTES) + 10), make()
    for index in range(5):
        chunks.put(f"00000002-{'0' * 12}/{GRAPH}/{index:04d}", bytes(30))
    assert len(chunks.view()) == 3
    assert not chunks.has(made.manifest)
    chunks.put(f"00000003-{'0' * 12}/weights.safetensors/0000", b"x")  # not needed here
    chunks.put("nonsense", b"x")
    chunks.put(f"{'x' * 900_000}/{GRAPH}/0000", b"")  # a long name costs memory too
    chunks.put(f"00000002-{'0' * 12}/{GRAPH}/0005", bytes(CHUNK_BYTES + 1))
    assert len(chunks.view()) == 3
    chunks.drop_to(1)
    assert len(chunks.view()) == 3
    chunks.drop_to(2)
    assert not chunks.view()


def test_a_subscriber_imports_the_base_install_only() -> None:
    code = (
        "import sys, sluice, trainers.subscriber, sluice.settings\n"
        "import trainers.serving as s, onnxruntime\n"
        "heavy = {'torch', 'pyarrow', 'pyruhvro', 'safetensors', 'onnx', 'faust', 'scipy', 'sklearn'}\n"
        "bad = heavy & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_chunks_of_the_largest_release_fit() -> None:
    chunks, piece = Chunks(), bytes(512 << 10)
    keys = [f"00000001-0123456789ab/{GRAPH}/{index:04d}" for index in range(FILE_LIMIT // len(piece))]
    for key in keys:
        chunks.put(key, piece)
    assert set(keys) == set(chunks.view())
