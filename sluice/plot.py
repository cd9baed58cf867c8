"""The picture of the demo: truth, what was shared, and the forecast with its interval, over the last days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Point:
    """One slot of one key; `truth` is known to the owner alone."""

    at: datetime
    truth: float
    shared: float
    forecast: float
    low: float
    high: float


def draw(points: Sequence[Point], file: Path, *, title: str, unit: str, level: float, zone: str) -> None:
    """Writes a PNG. Upper panel: noised readings, interval, forecast, truth; lower: the forecast's error."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import dates
    from matplotlib import pyplot as plt

    at = [point.at for point in points]
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(12, 6.4), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    low, high = [point.low for point in points], [point.high for point in points]
    upper.fill_between(at, low, high, color="#9ecae1", alpha=0.55, lw=0, label=f"{level:.0%} interval")
    upper.plot(at, [point.shared for point in points], ".", ms=3, color="#888888", label="shared (noised)")
    upper.plot(
        at, [point.truth for point in points], color="black", lw=0.9, label="truth (owner's side only)"
    )
    upper.plot(
        at, [point.forecast for point in points], color="#d94801", lw=1.3, label="forecast, one step ahead"
    )
    upper.set_ylabel(unit)
    upper.set_ylim(0, 1.15 * max(max(high), *(point.shared for point in points)))  # room for the legend
    upper.set_title(title, loc="left", fontsize=11)
    upper.legend(loc="upper left", ncols=4, frameon=False, fontsize=9)

    lower.axhline(0, color="black", lw=0.6)
    lower.plot(at, [point.forecast - point.truth for point in points], color="#d94801", lw=0.8)
    lower.set_ylabel("forecast - truth")
    lower.set_xlabel(f"time in {zone}")
    locator = dates.AutoDateLocator(tz=points[0].at.tzinfo)  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=points[0].at.tzinfo))  # type: ignore[no-untyped-call]
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.005)
    figure.savefig(file, dpi=110)
    plt.close(figure)
