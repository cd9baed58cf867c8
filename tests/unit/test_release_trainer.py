"""The trainer as a value: releases, forecasts and record depend on the log, not on batches or restarts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import load as load_contract
from trainers.follower import Follower
from trainers.manifest import CARD, WEIGHTS, unseal
from trainers.pins import Pin
from trainers.release import damaged
from trainers.signing import Signer
from trainers.spec import Public, parse
from trainers.tensors import load
from trainers.trainer import Candidate, Events, Setting, Trainer

PART = load_contract("traffic.detector-counts").public()
SPEC = parse(
    "{task: traffic, contracts: [traffic.detector-counts], target: vehicles, step: 5min, release_every: 6h, "
    "network: {steps: 2, batch: 16, hidden: [8], capacity: 512}}"
)
SIGNER = Signer.from_seed(bytes(32))
SLOTS, FIRST = 288, 4_800_000
KEYS = ("d-1", "d-2")
Run = tuple[list[Candidate], bytes, dict[str, bytes]]


def setting(**more: Any) -> Setting:
    return Setting(SPEC, Public.of([PART], SPEC.target), SIGNER, "cluster", 5, lambda schema_id: PART, **more)


def events(start: int, stop: int) -> Events:
    """Rows [start, stop) of one log: two keys in turn, every fourth offset a marker."""
    rows = np.arange(start, stop)
    slots = FIRST + rows // 2
    rng = np.random.default_rng(3)
    values: Any = np.round(np.clip(70 + 40 * np.sin(slots / 46) + rng.normal(0, 9, 2 * SLOTS)[rows], 0, 256))
    offsets = rows + rows // 3
    return Events(
        "shared", 0, int(stop + stop // 3), [KEYS[row % 2] for row in rows.tolist()], slots, values, offsets,
        np.full(len(rows), 9),
    )  # fmt: skip


def run(cuts: Sequence[int], *, restart: bool = False, **more: Any) -> Run:
    trainer, candidates, forecasts = Trainer(setting(**more)), list[Candidate](), b""
    borders = [0, *sorted(set(cuts)), 2 * SLOTS]
    for start, stop in pairwise(borders):
        taken = trainer.take(events(start, stop))
        candidates += taken.candidates
        found = taken.forecasts
        forecasts += np.column_stack([found.value, found.quantiles, found.experts]).tobytes()
        if restart:
            trainer = Trainer(setting(**more), trainer.parts())
    return candidates, forecasts, trainer.parts()


@pytest.fixture(scope="module")
def whole() -> Run:
    return run([])


def test_releases_come_with_event_time(whole: Run) -> None:
    manifests = [candidate.manifest for candidate in whole[0] if candidate.manifest is not None]
    assert [manifest.version for manifest in manifests] == list(range(1, len(manifests) + 1))
    assert len(manifests) >= 2
    for manifest in manifests:
        next_slot = manifest.as_of_ms // SPEC.step_ms + 1
        assert next_slot % (SPEC.release_ms // SPEC.step_ms) == 0
        row = 2 * (next_slot - FIRST)
        assert manifest.sources == {("cluster", "shared", 0): row + row // 3}


def test_a_subscriber_takes_them(whole: Run) -> None:
    follower = Follower("traffic", Pin(SIGNER.public, "argument"))
    for candidate in whole[0]:
        if candidate.value is not None:
            model = follower.take(follower.consider(candidate.value), dict(candidate.chunks))
            assert model.keys == KEYS
            assert model.forecast("d-2").epsilon == 1


def test_the_weights_are_safetensors_without_the_trainers_own_state(
    whole: Run,
) -> None:
    chunks = dict(whole[0][-1].chunks)
    name = next(key for key in chunks if f"/{WEIGHTS}/" in key)
    arrays, meta = load(chunks[name])
    assert meta["task"] == "traffic"
    assert "mlp.average.weight0" in arrays
    assert "profile.day" in arrays
    assert not [key for key in arrays if key.startswith(("recent", "standing", "windows", "mlp.first"))]
    card = next(piece for key, piece in chunks.items() if f"/{CARD}/" in key).decode()
    assert "epsilon 1.0 for one vehicle" in card


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 2 * SLOTS - 1), max_size=8), st.booleans())
def test_batches_and_restarts_change_no_byte(whole: Run, cuts: list[int], restart: bool) -> None:
    candidates, forecasts, parts = run(cuts, restart=restart)
    assert [(c.value, c.chunks, c.verdict) for c in candidates] == [
        (c.value, c.chunks, c.verdict) for c in whole[0]
    ]
    assert forecasts == whole[1]
    assert parts == whole[2]


def test_a_damaged_candidate_is_refused_and_the_line_goes_on() -> None:
    candidates, _, _ = run([], tamper=lambda number, graph: damaged(graph) if number == 3 else graph)
    first, second, planted, after = candidates
    assert not first.verdict.publish  # too few labels yet
    assert second.manifest is not None
    assert (planted.verdict.publish, planted.value) == (False, None)
    assert after.manifest is not None
    assert (after.manifest.version, after.manifest.parent) == (2, second.manifest.release)


def test_a_graph_that_does_not_load_is_refused() -> None:
    candidates, _, _ = run([], tamper=lambda number, graph: b"nothing")
    assert not any(candidate.verdict.publish for candidate in candidates)


def test_a_release_that_no_subscriber_would_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.trainer.FILE_LIMIT", 10_000)
    candidates, _, _ = run([])
    assert not any(candidate.verdict.publish for candidate in candidates)
    assert "a subscriber takes 0 MiB" in candidates[-1].verdict.reasons[-1]


def test_old_releases_are_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.trainer.KEPT_RELEASES", 1)
    candidates, _, parts = run([])
    made = [candidate for candidate in candidates if candidate.manifest is not None]
    assert made[0].cleared == ()
    for before, after in pairwise(made):
        assert before.manifest is not None
        assert after.cleared == ((before.manifest.release, tuple(key for key, _ in before.chunks)),)
    assert len(json.loads(parts["line"])["live"]) == 1


def test_every_release_is_signed_by_the_task(
    whole: Run,
) -> None:
    for candidate in whole[0]:
        if candidate.value is not None:
            assert unseal(candidate.value, SIGNER.public).contracts[0].terms_digest == PART["terms_digest"]
