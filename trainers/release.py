"""From a learner to a release: files, manifest, and the judgement of the gate. Pure: equal learners, equal
bytes.

What a release holds comes from shared records, the task and the contracts' public parts. Nothing in it
depends on a clock, on the size of batches, or on how often the trainer was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainers.gate import Fresh, Known, Scores, mae
from trainers.manifest import CARD, CONTEXT, GRAPH, WEIGHTS, File, Manifest, Metric, Source, Terms
from trainers.recent import summary
from trainers.serving import Graph
from trainers.spec import EXPERTS
from trainers.tensors import Arrays, dump

if TYPE_CHECKING:
    from trainers.learner import Learner
    from trainers.spec import TaskSpec

# Of the learner's state, what answers. Moments, replay and waiting forecasts are the trainer's own.
RELEASED = (
    "mlp.average.",
    "rls.weights",
    "profile.day",
    "profile.week",
    "profile.spread",
    "mixture.",
    "conformal.",
)
NOT_RELEASED = ("_mean", "_weight", "_count")


def weights(learner: Learner) -> Arrays:
    """What the learner has learned, by the names of its state. The graph also holds the last week's values
    (seasonal-naive), which are data, not weights.
    """
    state = learner.state()
    return {
        name: array
        for name, array in state.items()
        if name.startswith(RELEASED) and not name.endswith(NOT_RELEASED)
    }


def terms(part: Mapping[str, Any]) -> Terms:
    """A contract's public part as it stands in a manifest."""
    private = part["mode"] != "open"
    return Terms(
        contract=part["contract"],
        version=part["version"],
        owner=part["owner"],
        protects=part["unit"]["protects"] if private else "",
        epsilon=part["epsilon"] if private else "",
        terms_digest=part["terms_digest"],
    )


@dataclass(frozen=True, slots=True)
class Champion:
    """The newest release as a rival: its graph, how many keys it knows, and the slot it had learned up to."""

    graph: bytes
    keys: int
    as_of: int


def scores(learner: Learner, candidate: bytes, champion: Champion | None) -> Scores:
    """Errors on the held-out labels: of the forecasts that the learner issued, of the candidate's graph, and of
    the frozen champion's where it knows the key.
    """
    feed, samples = learner.held_out()
    labels, issued = samples["label"], samples["forecasts"].astype(np.float64)
    own, naive = issued[:, 0], issued[:, 1 + EXPERTS.index("seasonal_naive")]
    artefact = _forecasts(candidate, feed)
    known = fresh = None
    if champion is not None:
        both = feed["row"] < champion.keys
        newer = both & (feed["slot"] >= champion.as_of)  # their labels are one slot later
        its = np.full(len(labels), np.nan)
        its[both] = _forecasts(champion.graph, {name: array[both] for name, array in feed.items()})
        known = Known(int(both.sum()), mae(artefact[both], labels[both]), mae(its[both], labels[both]))
        fresh = Fresh(int(newer.sum()), mae(own[newer], labels[newer]), mae(its[newer], labels[newer]))
    return Scores(
        len(labels), mae(own, labels), mae(artefact, labels), mae(naive, labels), known=known, fresh=fresh
    )


def damaged(graph: bytes, seed: int = 0) -> bytes:
    """A worse copy of a graph: every weight gets noise of its own size. For tests of the gate, and the
    demo's.
    """
    import onnx
    from onnx import numpy_helper

    model, rng = onnx.load_model_from_string(graph), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        known = array[np.isfinite(array)] if array.dtype.kind == "f" else array[:0]
        if known.size > 1:
            worse = array + rng.normal(0, 1, array.shape) * known.std()
            tensor.CopyFrom(numpy_helper.from_array(worse.astype(array.dtype), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def files(
    spec: TaskSpec, learner: Learner, graph: bytes, version: int, contracts: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """The four files of a release by name."""
    return {
        GRAPH: graph,
        WEIGHTS: dump(weights(learner), {"task": spec.task, "version": version}),
        CONTEXT: dump(learner.contexts(), {"keys": learner.keys}),
        CARD: card(spec, learner, version, contracts).encode(),
    }


def metrics(found: Mapping[str, float]) -> tuple[Metric, ...]:
    """Errors of mixture, experts and persistence, as `recent.summary` gives them."""
    names = {"mixture": "mae"} | {name: f"mae_{name}" for name in (*EXPERTS, "persistence")}
    return tuple(Metric(name, found[key], int(found["count"])) for name, key in names.items())


def manifest(
    spec: TaskSpec,
    learner: Learner,
    contents: Mapping[str, bytes],
    *,
    version: int,
    parent: str | None,
    as_of_slot: int,
    sources: Mapping[Source, int],
    contracts: Sequence[Mapping[str, Any]],
) -> Manifest:
    """The unsigned manifest. Its metrics are those of the gate's window."""
    return Manifest(
        task=spec.task,
        version=version,
        parent=parent,
        as_of_ms=as_of_slot * spec.step_ms,
        sources=dict(sources),
        contracts=tuple(terms(part) for part in contracts),
        target=spec.target,
        unit="",
        step_ms=spec.step_ms,
        horizon=spec.horizon,
        season=tuple(spec.season),
        levels=tuple(spec.levels),
        experts=EXPERTS,
        metrics=metrics(summary(learner.held_out().samples, spec.levels)),
        keys=len(learner.keys),
        files=tuple(File.of(name, content) for name, content in contents.items()),
    )


def card(spec: TaskSpec, learner: Learner, version: int, contracts: Sequence[Mapping[str, Any]]) -> str:
    """The model card: what it forecasts, what it learned from and under which promise, how well, and its
    limits.
    """
    found = learner.metrics()
    keys, seconds = len(learner.keys), spec.step_ms // 1000
    low, high = spec.levels[0], spec.levels[-1]
    return "\n".join(
        [
            f"# {spec.task} v{version}",
            "",
            spec.about or "One-step forecasts.",
            "",
            f"Target `{spec.target}`, {seconds} s ahead; {keys} key(s), {learner.events} events learned.",
            "",
            "## Learned from",
            "",
            *(_promise(part) for part in contracts),
            "",
            "Noise was added before the trainer saw anything: the model is post-processing and costs no",
            "further epsilon.",
            "",
            "## Errors, on shared (noised) labels, each forecast issued before its label",
            "",
            "| forecaster | mean absolute error |",
            "| --- | --- |",
            *(f"| {metric.model} | {metric.mae:.4f} |" for metric in metrics(found)),
            "",
            f"{int(found['count'])} labels; the interval of levels {low:g} to {high:g} held "
            f"{found['coverage']:.3f} of them. Errors against the truth are lower, and unknown here.",
            "",
            "## Limits",
            "",
            "One step ahead of the newest shared value of a key; a key that was not shared is not known.",
            "Under drift the model follows with the next release; `as_of` says how old its newest value is.",
            "",
        ]
    )


def _promise(part: Mapping[str, Any]) -> str:
    name = f"`{part['contract']}` {part['version']} of {part['owner']}"
    purpose = ", ".join(part["terms"].get("purpose", ()))
    if part["mode"] == "open":
        return f"- {name}: shared openly. Purpose: {purpose}."
    unit, held_by = part["unit"], part["contribution"]["held_by"]
    epoch = f"{unit['epoch_ms'] / 3_600_000:g} h"
    promise = f"epsilon {part['epsilon']} for one {unit['protects']} in {epoch}, hides {unit['neighbours']}"
    return f"- {name}: {promise}, contributions held by: {held_by}. Purpose: {purpose}."


def _forecasts(graph: bytes, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The graph's forecasts, float64 [N]. NaN where it gives no finite ones or quantiles that fall, all NaN where
    it does not load or run: then the gate refuses it, as every subscriber would.
    """
    none = np.full(len(feed["row"]), np.nan)
    try:
        value, quantiles, _ = Graph(graph).run(feed)
        good = np.isfinite(quantiles).all(axis=1) & (np.diff(quantiles, axis=1) >= 0).all(axis=1)
        return np.where(good, np.asarray(value, np.float64), none)
    except Exception:  # onnxruntime's errors share no base class of their own
        return none
