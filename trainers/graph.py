"""The whole forecast as one ONNX graph: context in; mixture, quantiles and experts out. Any language can
run it.

    inputs    row int64 [N]                which key: its place in the release's list of keys
              slot int64 [N]               of the newest value: floor(UTC milliseconds / step)
              values float32 [N, context]  shared values up to that slot, oldest first, NaN where none came;
                                           the newest must be there
    outputs   value float64 [N]            the forecast for slot + 1
              quantiles float64 [N, 3]     never falling; the middle one is `value`
              experts float64 [N, 3]       in the order of `trainers.spec.EXPERTS`

Weights, profiles, mixture, intervals and the time zone's rules are initializers, as of the export; later
values can be fed in, and the answer is then that of the frozen release. It is written node by node rather
than traced from torch: most of it is no network. The same formulas stand in samples.py, models.py,
experts/, mixture.py, conformal.py, and a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from trainers.nodes import Name, Nodes
from trainers.profile import deviations
from trainers.seasons import THURSDAY
from trainers.spec import EXPERTS

if TYPE_CHECKING:
    from trainers.keyed import Array
    from trainers.learner import Learner


def export(learner: Learner) -> bytes:
    """The graph of the learner's forecast as of now. Takes milliseconds; equal states give equal bytes."""
    g = _Forecast(learner)
    x, base = g.inputs()
    experts = g.experts(x, base)
    value = g.mixture(experts)
    g.quantiles(value)
    return g.model(
        f"sluice.{learner.spec.task}",
        {
            "row": (np.int64, ["N"]),
            "slot": (np.int64, ["N"]),
            "values": (np.float32, ["N", learner.spec.context]),
        },
        {
            "value": (np.float64, ["N"]),
            "quantiles": (np.float64, ["N", 3]),
            "experts": (np.float64, ["N", len(EXPERTS)]),
        },
    )


class _Forecast(Nodes):
    """The formulas, part by part, over the state of one learner."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self._learner = learner
        self._lower, self._upper = float(learner.public.lower), float(learner.public.upper)
        self._rows = np.arange(len(learner.keys))
        seasons, slots = learner.seasons, learner.spec.day
        self.keep("zone_switch", seasons.switch)
        self.keep("zone_offset", seasons.offset + THURSDAY * slots)
        self._values = self.double("values")
        self._target = self("Add", "slot", 1)
        self._now_day, self._now_week = self._season("slot")
        self._target_day, self._target_week = self._season(self._target)

    def inputs(self) -> tuple[Name, Name]:
        """`Sampler.inputs`: x [N, F] and base [N]."""
        sampler, unit = self._learner.sampler, self._learner.public.unit
        lags, context = sampler.spec.autoregression.lags, sampler.spec.context
        day = self._table("profile_day", self._learner.profile["day"])
        week = self._table("profile_week", self._learner.profile["week"])

        missing = self("IsNaN", self._values)
        there = self.double(self("Not", missing))
        level = self("Div", self.total(self("Where", missing, 0.0, self._values)), self.total(there))
        past = self("Sub", self.column("slot"), sampler.ages)
        usual = self._lookup(day, self.column("row"), self._season(past)[0], sampler.spec.day)
        usual = self("Where", self("IsNaN", usual), self.column(level), usual)
        deviation = self("Where", missing, 0.0, self("Sub", self._values, usual))
        averages = self.keep("average_weights", sampler.averages)
        means = self("Div", self("MatMul", deviation, averages), self("MatMul", there, averages))

        base = self._lookup(day, "row", self._target_day, sampler.spec.day)
        base = self("Where", self("IsNaN", base), level, base)

        def since(age: int) -> Name:
            then = self("Gather", usual, np.array([context - 1 - age]), axis=1)
            return self("Sub", self.column(base), then)

        def weekday(place: Name) -> Name:
            return self.column(self._lookup(week, "row", place, sampler.spec.week))

        x = self(
            "Concat",
            self("Gather", deviation, context - 1 - np.arange(lags), axis=1),
            means,
            weekday(self._target_week),
            weekday(self._now_week),
            since(0),
            since(min(sampler.hour, context - 1)),
            self("Div", self("Sub", self.column(base), self._lower), 8.0),
            axis=1,
        )
        clock = self("Gather", self.keep("clock", sampler.clock), self._target_day, axis=0)
        bias = self("Add", self("Mul", self.column(base), 0.0), 0.5)
        return self("Concat", self("Div", x, unit), clock, bias, axis=1), base

    def experts(self, x: Name, base: Name) -> Name:
        """[N, 3], clipped to what can be shared."""
        learner = self._learner
        rls = self._per_key("rls_weights", learner.rls["weights"])
        linear = self.total(self("Mul", x, rls))
        last = self.flat(self("Gather", self._values, np.array([learner.spec.context - 1]), axis=1))
        naive_week = self._table("seasonal_week", learner.seasonal["week"])
        naive_day = self._table("seasonal_day", learner.seasonal["day"])
        naive = self._lookup(naive_day, "row", self._target_day, learner.spec.day)
        naive = self("Where", self("IsNaN", naive), last, naive)
        same = self._lookup(naive_week, "row", self._target_week, learner.spec.week)
        naive = self("Where", self("IsNaN", same), naive, same)
        forecasts = [self._against(base, linear), self._against(base, self._network(x)), naive]
        joined = self("Concat", *(self.column(forecast) for forecast in forecasts), axis=1)
        return self._clipped(joined, "experts")

    def mixture(self, experts: Name) -> Name:
        weights = self._per_key("mixture_weights", self._learner.mixture.weights(self._rows))
        return self._clipped(self.total(self("Mul", experts, weights)), "value")

    def quantiles(self, value: Name) -> Name:
        learner = self._learner
        table = self._table("spread", deviations(learner.profile["spread"], learner.public.unit))
        spread = self._lookup(table, "row", self._target_day, learner.spec.day)
        bounds = learner.conformal["bounds"][self._rows]
        low = self._per_key("bound_low", np.minimum(bounds[:, 0], 0))
        high = self._per_key("bound_high", np.maximum(bounds[:, 1], 0))
        low = self("Max", self("Add", value, self("Mul", low, spread)), self._lower)
        high = self("Min", self("Add", value, self("Mul", high, spread)), self._upper)
        columns = (self.column(part) for part in (low, value, high))
        return self("Concat", *columns, axis=1, named="quantiles")

    def _network(self, x: Name) -> Name:
        served = self._learner.mlp.served()
        h = self("Concat", x, self.double(self._per_key("embedding", served["embedding"])), axis=1)
        layers = sum(name.startswith("weight") for name in served)
        for layer in range(layers):
            weight = self.double(self.keep(f"mlp_weight{layer}", served[f"weight{layer}"]))
            bias = self.double(self.keep(f"mlp_bias{layer}", served[f"bias{layer}"]))
            h = self("Add", self("MatMul", h, weight), bias)
            if layer < layers - 1:
                h = self("Mul", h, self("Sigmoid", h))
        return self.flat(h)

    def _against(self, base: Name, change: Name) -> Name:
        return self("Add", base, self("Mul", change, self._learner.public.unit))

    def _clipped(self, value: Name, named: Name) -> Name:
        return self("Min", self("Max", value, self._lower), self._upper, named=named)

    def _season(self, slots: Name) -> tuple[Name, Name]:
        """Slot of the local day and week, of slots of any shape (`Seasons.day`, `Seasons.week`)."""
        seasons = self._learner.seasons
        if len(seasons.switch):
            past = self("GreaterOrEqual", self.column(slots), "zone_switch")
            era = self.total(self("Cast", past, to=TensorProto.INT64))
        else:
            era = self("Mul", slots, 0)
        local = self("Add", slots, self("Gather", "zone_offset", era))
        return self("Mod", local, seasons.day_slots), self("Mod", local, 7 * seasons.day_slots)

    def _table(self, name: Name, table: Array) -> Name:
        """A table [K, width] of the keys, flat, for `_lookup`."""
        return self.keep(name, table[: len(self._rows)].reshape(-1))

    def _lookup(self, table: Name, row: Name, place: Name, width: int) -> Name:
        """table[row, place] as float64; row and place broadcast."""
        return self.double(self("Gather", table, self("Add", self("Mul", row, width), place)))

    def _per_key(self, name: Name, table: Array) -> Name:
        """table[row]."""
        return self("Gather", self.keep(name, table[: len(self._rows)]), "row")
