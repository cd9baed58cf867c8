"""What a task forecasts, from which contracts, and the public numbers that a learner may scale by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from schemas import names
from schemas.errors import ConfigurationError
from schemas.text import read
from schemas.units import MS, DurationMs, Part
from trainers.gate import LEAST

EXPERTS = ("rls", "mlp", "seasonal_naive")
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=100_000)]


class Profile(Part):
    """The usual value of each slot of a day, and what a weekday adds to it."""

    smooth: Annotated[int, Field(ge=0, le=24)] = 2  # slots to either side, triangular
    forget: Fraction = 0.95  # a day's weight against the next day's
    weekday_prior: Annotated[float, Field(ge=0, le=100)] = 2.0  # that many days of "no difference"
    spread_smooth: Annotated[int, Field(ge=0, le=288)] = 12  # slots to either side, for the size of errors
    spread_rate: Fraction = 0.02


class Autoregression(Part):
    """Lags and moving averages of the deviation from the profile; the recursion that weighs them."""

    lags: Positive = 13
    half_lives: tuple[Positive, ...] = (2, 5, 12, 36)
    forget: Fraction = 0.9995
    prior: Annotated[float, Field(gt=0)] = 100.0  # variance of a weight before the first sample
    limit: Annotated[float, Field(gt=0)] = 1e6  # largest trace of the covariance: forgetting pauses above it


class Network(Part):
    """The stacked core: one network for all keys, trained on a replay of what was seen."""

    hidden: tuple[Positive, ...] = (64, 64)
    embedding: Positive = 4
    steps: Positive = 30
    batch: Positive = 256
    rate: Fraction = 1e-3
    decay: Fraction = 1e-4
    average: Fraction = 0.98  # served weights are a moving average of the trained ones
    capacity: Annotated[int, Field(ge=64, le=1 << 20)] = 8192  # events that a replay can draw from


class Mixture(Part):
    """Weights fall with a power of the discounted squared error."""

    power: Literal[1, 2, 4, 8] = 4
    discount: Fraction = 0.999
    prior: Annotated[float, Field(gt=0)] = 20.0  # that many events of the average key


class Intervals(Part):
    """Quantile tracking: how far a bound moves after each label, in standard deviations."""

    rate: Fraction = 0.02


class TaskSpec(Part):
    """One forecasting task: every key of its contracts, one step ahead.

    `context` is the number of past slots that a forecast sees; `held_out` slots before them stay out of
    the profile, so that a release can be tried on them (fewer than the gate asks for would never be
    released). `zone` is the time zone of the seasons; the season of the values, not of a person.
    """

    task: Annotated[str, AfterValidator(names.task_name)]
    about: str = ""
    contracts: Annotated[tuple[str, ...], Field(min_length=1)]
    target: str  # field of the contracts, as named there
    step_ms: Annotated[DurationMs, Field(alias="step")]
    horizon: Literal[1] = 1
    zone: str = "UTC"
    levels: tuple[Fraction, Fraction, Fraction] = (0.05, 0.5, 0.95)
    context: Annotated[int, Field(ge=8, le=4096)] = 96
    held_out: Annotated[int, Field(ge=LEAST, le=4096)] = 96
    release_ms: Annotated[DurationMs, Field(alias="release_every", ge=1)] = MS["d"]
    profile: Profile = Profile()
    autoregression: Autoregression = Autoregression()
    network: Network = Network()
    mixture: Mixture = Mixture()
    intervals: Intervals = Intervals()

    @property
    def day(self) -> int:
        """Slots of a day."""
        return MS["d"] // self.step_ms

    @property
    def week(self) -> int:
        """Slots of a week."""
        return 7 * self.day

    @property
    def season(self) -> tuple[int, int]:
        return self.day, self.week

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if MS["d"] % self.step_ms or self.day < 2:
            raise ValueError("a day must be a whole number of steps, at least two")
        if not self.levels[0] < self.levels[1] == 0.5 < self.levels[2]:
            raise ValueError("levels must be three: lower, 0.5, upper")
        if self.release_ms % self.step_ms:
            raise ValueError("release_every must be a whole number of steps")
        if self.autoregression.lags > self.context:
            raise ValueError("more lags than the context holds")
        if max(self.profile.smooth, self.profile.spread_smooth) * 2 >= self.day:
            raise ValueError("the smoothing is wider than a day")
        return self


def parse(text: str, name: str = "task") -> TaskSpec:
    """The task in a YAML text. Raises ConfigurationError with the place and the remedy."""
    values, _ = read(text, name)
    try:
        return TaskSpec.model_validate(values)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "task"
        raise ConfigurationError(
            f"{name}: {place}: {first['msg']}.", "Correct it as trainers/tasks/traffic.yaml shows."
        ) from None


def load(path: Path) -> TaskSpec:
    """The task in a file. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(
            f"The task {path} cannot be read ({type(problem).__name__}).", "Name a readable YAML file."
        ) from None
    return parse(text, path.name)


@dataclass(frozen=True, slots=True)
class Public:
    """What the contracts publish about the target: the bounds of shared values, and the variance of the
    noise in one.

    `noise_variance` is that of the law before it is clamped to the bounds; 0 where nothing is noised.
    """

    lower: float
    upper: float
    noise_variance: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise ConfigurationError(
                "The target has no finite bounds.", "Declare min and max in the contract."
            )

    @property
    def unit(self) -> float:
        """The one scale of all inputs: a sixteenth of the range."""
        return (self.upper - self.lower) / 16

    @classmethod
    def of(cls, parts: Sequence[Mapping[str, Any]], target: str) -> Self:
        """From the public parts of the task's contracts (`schemas.public.part`), the widest of each."""
        found = []
        for part in parts:
            field = part["fields"].get(target)
            if field is None or "bounds" not in field:
                raise ConfigurationError(
                    f"Contract {part['contract']!r} shares no bounded number named {target!r}.",
                    "Set `target` to a count or number field of the contract.",
                )
            low, high = field["bounds"]
            found.append((float(low), float(high), _variance(field["law"])))
        if not found:
            raise ConfigurationError("The task has no contract.", "Name at least one under `contracts`.")
        lows, highs, variances = zip(*found, strict=True)
        return cls(min(lows), max(highs), max(variances))


def _variance(law: Mapping[str, Any]) -> float:
    """Of two-sided geometric noise with alpha = e^(-epsilon / D), in the field's unit: 2 alpha / (1 -
    alpha)^2.
    """
    rate = law["nano_epsilon"] * 1e-9 / law["sensitivity"]
    if rate <= 0:
        return 0.0
    alpha = math.exp(-rate)
    return 2 * alpha / (1 - alpha) ** 2 * float(law["step"]) ** 2
