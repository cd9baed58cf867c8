"""Which bars a report breaks. The broker is not ours: it is measured, and named apart."""

from __future__ import annotations

from typing import Any

OURS = ("share", "publish", "train", "registry")
SLOPE_MB_H, GROWTH_MB = 1.0, 8.0
LONG_SECONDS = 1200.0  # below, a slope an hour is a guess, and the growth counts
HANDLES = 2  # more than that between the first and the last half minute is a leak
LAG_SECONDS = 2.0
QUIET = 0.5  # of the run; with less, others used the machine: who is late holds more in queues, and that is no leak
NONE = ("lost", "duplicated", "reordered", "counts_differ")


def broken(report: dict[str, Any]) -> list[str]:
    """Each as a sentence; empty where all hold."""
    found = [f"{name}: {report[name]}" for name in NONE if report[name]]
    if not report["drained"]:
        found.append("not everything was shared after the load had ended")
    found += [f"{name} ended with {code}" for name, code in report["exits"].items() if code]
    for name in ("lag_p99_s", "delay_p99_s"):
        if fair(report) and (report[name] is None or report[name] >= LAG_SECONDS):
            found.append(f"{name} is {report[name]}, not below {LAG_SECONDS}")
    for name in OURS:
        held = report["processes"][name]
        if held["rss_mb"] is None:
            found.append(f"{name}: never measured")
            continue
        found += [f"{name}: {what}" for what in _handles(held)]
        if fair(report):
            found += [f"{name}: {what}" for what in _memory(held, report["seconds"])]
    return found


def fair(report: dict[str, Any]) -> bool:
    """Whether lag and memory say something about us. Loss, doubles, exits and handles always do."""
    return bool(report["quiet_seconds"] >= QUIET * report["seconds"])


def _memory(held: dict[str, Any], seconds: float) -> list[str]:
    if seconds >= LONG_SECONDS and held["rss_slope_mb_h"] > SLOPE_MB_H:
        return [f"memory rises by {held['rss_slope_mb_h']} MB an hour, the bar is {SLOPE_MB_H}"]
    if seconds < LONG_SECONDS and held["rss_growth_mb"] > GROWTH_MB:
        return [f"memory grew by {held['rss_growth_mb']} MB, the bar is {GROWTH_MB}"]
    return []


def _handles(held: dict[str, Any]) -> list[str]:
    return [
        f"{held[f'{what}_growth']} {what} more than after the warm-up"
        for what in ("files", "threads")
        if held[f"{what}_growth"] > HANDLES
    ]
