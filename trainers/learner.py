"""Predict first, learn when the label has arrived: the whole online forecaster of one task, as a pure value.

No clock, no files, no global randomness: what comes out depends on the spec, the public bounds, the seed
and the order of the events, never on how they are cut into batches. Between two replays keys do not touch
each other; what all keys share (the network, the mixture's average) changes only at fixed event counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from schemas.errors import ConfigurationError
from trainers.conformal import Conformal
from trainers.events import Floats, Forecasts, HeldOut, Slots, once_each
from trainers.experts.rls import Rls
from trainers.experts.seasonal import SeasonalNaive
from trainers.keyed import Array, Column, Keyed, Rows
from trainers.mixture import Mixture
from trainers.models import Mlp
from trainers.profile import ProfileTable, deviations
from trainers.recent import Recent, summary
from trainers.samples import Sampler
from trainers.seasons import Seasons
from trainers.spec import EXPERTS, Public, TaskSpec
from trainers.windows import Windows

FORMAT = 1


class Learner:
    """State and forecasts of all keys of one task. Not safe for several threads."""

    def __init__(self, spec: TaskSpec, public: Public, seed: int, seasons: Seasons | None = None) -> None:
        self.spec, self.public, self.seed = spec, public, seed
        self.seasons = seasons or Seasons.of(spec)
        self.sampler = Sampler(spec, public, self.seasons)
        size = self.sampler.size
        self.windows = Windows(spec.context, spec.held_out)
        self.profile = ProfileTable(spec, self.seasons)
        self.rls = Rls(spec.autoregression, size)
        self.mlp = Mlp(spec.network, size, seed)
        self.seasonal = SeasonalNaive(self.seasons)
        self.mixture = Mixture(spec.mixture, len(EXPERTS))
        self.conformal = Conformal(spec)
        self.recent = Recent(spec.network.capacity, size, len(EXPERTS))
        self.standing = Keyed(  # the forecast of each key that waits for its label
            x=Column((size,), np.float64, 0.0),
            base=Column((), np.float64, np.nan),
            value=Column((), np.float64, np.nan),
            spread=Column((), np.float64, np.nan),
            quantiles=Column((3,), np.float64, np.nan),
            experts=Column((len(EXPERTS),), np.float64, np.nan),
        )
        self.keys: list[str] = []
        self._rows: dict[str, int] = {}
        self.events = self.late = 0
        self._since = 0  # events since the last replay

    def step(self, keys: Sequence[str], slots: Slots, values: Floats) -> Forecasts:
        """Take N events in log order: key, slot, shared value. See Forecasts for what comes back."""
        known = len(self.keys)
        rows = np.fromiter((self._row(key) for key in keys), np.intp, len(keys))
        slots, values = np.asarray(slots, np.int64), np.asarray(values, np.float64)
        if not len(rows) == len(slots) == len(values):
            raise ValueError(f"{len(rows)} keys, {len(slots)} slots, {len(values)} values")
        if len(self.keys) > known:
            self._grow()
        out = Forecasts.empty(rows)
        before = np.maximum.accumulate(np.concatenate([[known - 1], rows])) + 1 if len(rows) else rows
        start = 0
        while start < len(rows):  # from replay to replay
            due = np.minimum(self.spec.day * before[start:-1], self.spec.network.capacity // 4)
            waiting = self._since + np.arange(len(due))
            ready = np.flatnonzero((waiting >= due) & (due > 0))
            if len(ready) and ready[0] == 0:
                self._replay(int(before[start]))
                continue
            stop = start + int(ready[0]) if len(ready) else len(rows)
            for part in once_each(rows[start:stop]):
                self._take(part + start, self.events + part, rows, slots, values, out)
            self.events += stop - start
            self._since += stop - start
            start = stop
        return out

    def context(self, key: str) -> dict[str, Array]:
        """The inputs of the exported graph for one key: one row of `contexts`. Raises KeyError."""
        row = self._rows[key]
        return {name: array[row : row + 1] for name, array in self.contexts().items()}

    def contexts(self) -> dict[str, Array]:
        """What the exported graph takes, row by row as in `keys`.

        `row` int64 [K]; `slot` int64 [K], of the newest value; `values` float32 [K, context], oldest first,
        one per slot up to `slot`, NaN where none came.
        """
        return self._context(np.arange(len(self.keys)), 0)

    def now(self) -> dict[str, Floats]:
        """`value`, `quantiles` and `experts` of every key with the state of now: what the exported graph
        answers.

        The standing forecast of a key is that of its last event; a replay since then, which other keys'
        events set off, makes the two differ. Changes nothing.
        """
        rows = np.arange(len(self.keys))
        found = self._compute(rows, self.windows["slot"][rows])
        return {name: found[name] for name in ("value", "quantiles", "experts")}

    def held_out(self) -> HeldOut:
        """The labels of the last `held_out` slots of every key that are among the newest `capacity` events.

        No label is in the profile, and none is newer than its context's last slot + 1; but RLS, network
        and mixture have learned from them. The forecasts in `samples` were issued before their labels; what a
        graph makes of `feed` finds a graph that does not do what the learner does, and is no measure of skill.
        A key that has fallen silent leaves with its events, and memory is bounded by `capacity`, not by keys.
        """
        samples = self.recent.last(self.events, self.spec.network.capacity)
        back = (
            self.windows["slot"][samples["row"]] - samples["slot"] + 1
        )  # slots since the label's context ended
        kept = back <= self.spec.held_out
        samples = {name: array[kept] for name, array in samples.items()}
        return HeldOut(self._context(samples["row"], back[kept]), samples)

    def metrics(self, last: int | None = None) -> dict[str, float]:
        """Prequential errors on shared labels over the `last` scored events (default: all that are held).

        `count`, `mae` and `rmse` of the mixture, `mae_<expert>`, `mae_persistence`, `coverage` and
        `interval_score` of the outer quantiles. NaN where nothing was scored. Every forecast in it was
        issued before its label was known.
        """
        count = self.spec.network.capacity if last is None else last
        return summary(self.recent.last(self.events, count), self.spec.levels)

    def export_onnx(self) -> bytes:
        """The whole forecast as an ONNX graph with the state of now; see `trainers.graph`."""
        from trainers.graph import export

        return export(self)

    def state(self) -> dict[str, Array]:
        """All of it, as arrays of numbers; `from_state` goes on bit for bit as if nothing had happened."""
        keys = [key.encode() for key in self.keys]
        state: dict[str, Array] = {
            "learner.counts": np.array([FORMAT, self.seed, self.events, self.late, self._since], np.int64),
            "learner.public": np.array([self.public.lower, self.public.upper], np.float64),
            "keys.bytes": np.frombuffer(b"".join(keys), np.uint8).copy(),
            "keys.ends": np.cumsum([len(key) for key in keys], dtype=np.int64),
            "seasons.switch": self.seasons.switch.copy(),
            "seasons.offset": self.seasons.offset.copy(),
        }
        for name, part in self._all().items():
            state.update(part.snapshot(name))
        return state

    @classmethod
    def from_state(cls, spec: TaskSpec, public: Public, state: Mapping[str, Array]) -> Self:
        """The learner that `state` was taken from. Raises ConfigurationError where it is of another task."""
        try:
            version, seed, events, late, since = (int(number) for number in state["learner.counts"])
            if version != FORMAT or state["learner.public"].tolist() != [public.lower, public.upper]:
                raise ValueError("another format, or other bounds")
            seasons = Seasons(spec.day, np.array(state["seasons.switch"]), np.array(state["seasons.offset"]))
            learner = cls(spec, public, seed, seasons)
            for name, part in learner._all().items():
                part.restore(name, state)
        except (KeyError, ValueError) as problem:
            raise ConfigurationError(
                f"The saved state does not fit task {spec.task!r}: {problem}.",
                "Train from the start of the shared topics, or go back to the task file it was made with.",
            ) from None
        text, start = state["keys.bytes"].tobytes(), 0
        for end in state["keys.ends"].tolist():
            learner._row(text[start:end].decode())
            start = end
        learner.events, learner.late, learner._since = events, late, since
        return learner

    def _context(self, rows: Rows, back: Slots | int) -> dict[str, Array]:
        values = self.windows.contexts(rows, back).astype(np.float32)
        return {"row": rows.astype(np.int64), "slot": self.windows["slot"][rows] - back, "values": values}

    def _all(self) -> dict[str, Keyed | Mlp | Recent]:
        """Everything that has a state."""
        return {**self._parts(), "mlp": self.mlp, "recent": self.recent}

    def _parts(self) -> dict[str, Keyed]:
        return {
            "windows": self.windows,
            "profile": self.profile,
            "rls": self.rls,
            "seasonal": self.seasonal,
            "mixture": self.mixture,
            "conformal": self.conformal,
            "standing": self.standing,
        }

    def _row(self, key: str) -> int:
        row = self._rows.setdefault(key, len(self.keys))
        if row == len(self.keys):
            self.keys.append(key)
        return row

    def _grow(self) -> None:
        for part in self._parts().values():
            part.grow(len(self.keys))
        self.mlp.grow(len(self.keys))

    def _replay(self, keys: int) -> None:
        """Train the network on what is held, and settle what keys share, as of the first `keys` keys."""
        self._since = 0
        self.mixture.settle(keys)
        x, targets, rows = self.recent.samples()
        if len(x):
            self.mlp.replay(x, targets, rows)

    def _take(
        self, part: Rows, numbers: Slots, rows: Rows, slots: Slots, values: Floats, out: Forecasts
    ) -> None:
        """The events at `part`, no key twice, with their event numbers: score, learn, forecast."""
        self.recent.skip(numbers)
        fresh = (slots[part] > self.windows["slot"][rows[part]]) & np.isfinite(values[part])
        if not fresh.all():
            self.late += int((~fresh).sum())
            self._answer(part[~fresh], rows[part[~fresh]], out)
            part, numbers = part[fresh], numbers[fresh]
            if not len(part):
                return
        keys, slot, value = rows[part], slots[part], values[part]
        labelled = slot == self.windows["slot"][keys] + 1
        if labelled.any():
            self._learn(
                part[labelled], numbers[labelled], keys[labelled], slot[labelled], value[labelled], out
            )
        self.seasonal.learn(keys, slot, value)
        for gone in self.windows.push(keys, slot, value):
            self.profile.fold(gone)
        self._forecast(keys, slot)
        self._answer(part, keys, out)
        out.learned[part] = True

    def _learn(
        self, part: Rows, numbers: Slots, keys: Rows, slot: Slots, label: Floats, out: Forecasts
    ) -> None:
        """The standing forecasts of `keys` have met their labels."""
        x, base, value, spread, quantiles, experts = (
            self.standing[name][keys] for name in self.standing.columns
        )
        out.scored[part] = True
        out.issued_value[part], out.issued_experts[part] = value, experts
        out.issued_quantiles[part] = quantiles
        unit, error = self.public.unit, label - value
        target = (label - base) / unit
        last = self.windows["values"][keys, -1]
        forecasts = np.column_stack([value, experts, last])
        self.recent.put(
            numbers,
            keys,
            slot=slot,
            x=x,
            target=target,
            label=label,
            quantiles=quantiles,
            forecasts=forecasts,
        )
        self.conformal.learn(keys, error / spread)
        self.profile.widen(keys, slot, error)
        self.mixture.learn(keys, (experts - label[:, None]) / unit)
        self.rls.learn(keys, x, target)

    def _forecast(self, keys: Rows, slot: Slots) -> None:
        """Put a forecast for slot + 1 up for each of `keys`."""
        for name, column in self._compute(keys, slot).items():
            self.standing[name][keys] = column

    def _compute(self, keys: Rows, slot: Slots) -> dict[str, Floats]:
        """The columns of `standing` for each of `keys`, whose newest value is that of `slot`."""
        low, high, unit = self.public.lower, self.public.upper, self.public.unit
        context = self.windows.contexts(keys)
        inputs = self.sampler.inputs(self.profile, keys, context, slot)
        experts = np.stack(
            [
                inputs.base + unit * self.rls.predict(keys, inputs.x),
                inputs.base + unit * self.mlp.predict(keys, inputs.x),
                self.seasonal.predict(keys, slot + 1, context[:, -1]),
            ],
            axis=1,
        )
        experts = np.minimum(np.maximum(experts, low), high)
        # weights add up to 1 but for a rounding: a blend of equal experts may step over a bound
        value = np.minimum(np.maximum(self.mixture.blend(keys, experts), low), high)
        spread = deviations(self.profile["spread"][keys, self.seasons.day(slot + 1)], unit)
        quantiles = self.conformal.quantiles(keys, value, spread, low, high)
        return {
            "x": inputs.x,
            "base": inputs.base,
            "value": value,
            "spread": spread,
            "quantiles": quantiles,
            "experts": experts,
        }

    def _answer(self, part: Rows, keys: Rows, out: Forecasts) -> None:
        out.target[part] = self.windows["slot"][keys] + 1
        out.value[part], out.quantiles[part] = self.standing["value"][keys], self.standing["quantiles"][keys]
        out.experts[part] = self.standing["experts"][keys]
