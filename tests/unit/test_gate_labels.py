"""What the gate compares on: the same labels for all, of keys that live, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from tests.unit.test_release_trainer import FIRST, SPEC, setting
from trainers import release
from trainers.trainer import Candidate, Events, Trainer

DAY = 72  # slots between releases in SPEC
LEVELS = {"busy": (150.0, 40.0), "quiet": (5.0, 1.0), "other": (60.0, 8.0)}


def feed(trainer: Trainer, first: int, days: int, keys: Sequence[str]) -> list[Candidate]:
    """`days` release periods from slot `first` on, of some keys; offset = slot * 10."""
    rng = np.random.default_rng(first)
    slots = np.repeat(FIRST + np.arange(first, first + days * DAY), len(keys))
    names = list(keys) * (days * DAY)
    values = np.array([np.clip(rng.normal(*LEVELS[name]), 0, 256) for name in names])
    offsets = slots * 10 + np.tile(np.arange(len(keys)), days * DAY)
    end = int(offsets[-1]) + 1
    taken = trainer.take(Events("shared", 0, end, names, slots, values, offsets, np.full(len(names), 9)))
    return list(taken.candidates)


def test_a_busy_key_that_falls_silent_does_not_stop_the_releases() -> None:
    """Its last labels are harder than all that come after: they must not count against the others."""
    trainer = Trainer(setting())
    assert feed(trainer, 0, 6, ["busy", "quiet"])[-1].manifest is not None
    after = feed(trainer, 6 * DAY, 12, ["quiet"])
    assert [candidate.verdict.reasons for candidate in after if not candidate.verdict.publish] == []


def test_releases_go_on_when_every_key_is_another() -> None:
    trainer = Trainer(setting())
    assert feed(trainer, 0, 6, ["busy", "quiet"])[-1].manifest is not None
    after = feed(trainer, 6 * DAY, 12, ["other"])
    assert len(after) == 12
    assert all(candidate.verdict.publish for candidate in after[-6:])
    last = after[-1].manifest
    assert last is not None
    assert {metric.count for metric in last.metrics} == {after[-1].scores.count}


def test_the_figures_are_of_the_same_labels() -> None:
    trainer = Trainer(setting())
    feed(trainer, 0, 6, ["busy", "quiet"])
    feed(trainer, 6 * DAY, 2, ["quiet"])
    learner = trainer.learner
    graph = learner.export_onnx()
    found = release.scores(learner, graph, release.Champion(graph, 2, FIRST + 8 * DAY - 50))
    samples = learner.held_out().samples
    errors = np.abs(samples["forecasts"].astype(float) - samples["label"][:, None])
    assert found.count == len(samples["label"]) == 2 * SPEC.held_out
    assert (found.learner, found.seasonal_naive) == (errors[:, 0].mean(), errors[:, 3].mean())
    assert found.known is not None
    assert found.fresh is not None
    assert found.known.artefact == found.known.champion == found.artefact
    newest = np.flatnonzero(samples["slot"] > FIRST + 8 * DAY - 50)
    assert found.fresh.count == len(newest) == 49
    assert found.fresh.learner == errors[newest, 0].mean()


def test_a_graph_whose_quantiles_fall_is_refused() -> None:
    """A subscriber would refuse it: then it must not become the champion either."""

    def crossed(number: int, graph: bytes) -> bytes:
        model = onnx.load_model_from_string(graph)
        for tensor in model.graph.initializer:
            if tensor.name == "bound_low":  # ends above the forecast
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        return bytes(model.SerializeToString())

    candidates = feed(Trainer(setting(tamper=crossed)), 0, 4, ["other"])
    assert not any(candidate.verdict.publish for candidate in candidates)
    assert "artefact gives no finite error" in " ".join(candidates[-1].verdict.reasons)
