"""The picture of a soak: memory of each process, and the lag, over time."""

from __future__ import annotations

from pathlib import Path

from tests.soak.run import Soak


def draw(soak: Soak, file: Path) -> None:
    """Writes a PNG, or what else the suffix says. Memory is drawn against its value at the end of the warm-up."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(12, 7), height_ratios=(3, 2), sharex=True, layout="constrained"
    )
    warm = soak.options.warm_up
    for role in soak.roles:
        base = next((each.mb for each in role.held if each.at >= warm), 0.0)
        at = [each.at / 60 for each in role.held]
        upper.plot(at, [each.mb - base for each in role.held], lw=1, label=f"{role.name} ({base:.0f} MB)")
    upper.axvline(warm / 60, color="#888888", lw=0.8, ls=":")
    upper.set_ylabel("MB against the end of the warm-up")
    upper.set_ylim(-30, 30)
    upper.legend(loc="upper left", ncols=5, frameon=False, fontsize=9)
    lower.plot([at / 60 for at, _ in soak.delays], [value for _, value in soak.delays], lw=0.4, label="delay")
    for name, series in soak.lags.seconds.items():
        lower.plot([at / 60 for at, _ in series], [value for _, value in series], lw=0.8, label=name)
    lower.set_ylabel("seconds")
    lower.set_xlabel("minutes")
    lower.legend(loc="upper left", ncols=3, frameon=False, fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)
