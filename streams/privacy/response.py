"""k-ary randomized response in integers (docs/privacy.md): the truth, or one of the others, evenly."""

from __future__ import annotations

from streams.privacy.masses import BITS, TOTAL, exp_bounds, holds


def weights(k: int, nano: int) -> list[int]:
    """Masses of the step from the true member to the shared one: 0 stays, j moves j members on (mod k).

    Q = ceil(2^63 / (E + k - 1)), P = 2^63 - (k - 1) Q with a rational E <= e^epsilon. Raises ValueError
    outside 2 <= k <= 65536 and for an epsilon below one billionth.
    """
    if not 2 <= k <= 1 << 16 or nano < 1:
        raise ValueError(f"no randomized response among {k} members with {nano} billionths")
    one = 1 << BITS
    e = exp_bounds(nano)[2]
    others = -(-(TOTAL * one) // (e + (k - 1) * one))
    return [TOTAL - (k - 1) * others, *[others] * (k - 1)]


def loss_within(steps: list[int], nano: int) -> bool:
    """Whether the largest ratio of two masses is at most e^(nano * 1e-9), exactly."""
    return min(steps) > 0 and sum(steps) == TOTAL and holds(max(steps), min(steps), nano)
