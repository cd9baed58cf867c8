"""What a series of samples says: pure functions, in seconds and megabytes of 1,000,000 bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import combinations

Series = Sequence[tuple[float, float]]  # (seconds, value), in order
WINDOW_SECONDS = 30.0


def slope_an_hour(series: Series) -> float:
    """Theil-Sen: the median of the slopes between all pairs of minutes, each the median of its samples. A step that
    happens once, or one wild minute, is no slope. 0 where there are not two minutes."""
    minutes: dict[int, list[float]] = {}
    for at, value in series:
        minutes.setdefault(int(at // 60), []).append(value)
    points = [(minute, statistics.median(found)) for minute, found in sorted(minutes.items())]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) * 60 for a, b in combinations(points, 2)]
    return statistics.median(slopes) if slopes else 0.0


def growth(series: Series) -> float:
    """Median of the last WINDOW_SECONDS minus that of the first; of a quarter each where there are not so many."""
    if not series:
        return 0.0
    first, last = series[0][0], series[-1][0]
    window = min(WINDOW_SECONDS, (last - first) / 4)
    begin = statistics.median(value for at, value in series if at <= first + window)
    return statistics.median(value for at, value in series if at >= last - window) - begin


def p99(values: Sequence[float]) -> float | None:
    """Nearest rank; None for nothing."""
    found = sorted(values)
    return found[math.ceil(0.99 * len(found)) - 1] if found else None


def after(series: Series, seconds: float) -> list[tuple[float, float]]:
    return [each for each in series if each[0] >= seconds]
