"""`sluice lag`: a table, a live table, or one JSON object."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from schemas.errors import RetriableError
from sluice.cli.screen import line

if TYPE_CHECKING:
    from sluice.ops.lag import GroupLag, Lag

SECOND_LOOK_SECONDS = 1.0
WIDEST = 2_000  # columns
STYLES = {"OK": "green", "WARN": "yellow", "REWIND": "magenta", "STALL": "red", "STOP": "bold red", "": "dim"}


def lag(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (one a line with --watch).")
    ] = False,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Just this group; may be repeated.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between refreshes with --watch.")] = 2.0,
    home: Annotated[str | None, typer.Option(help="Folder of the stack; default $SLUICE_HOME.")] = None,
) -> None:
    """How far each consumer group is behind: messages up to the last stable offset, and the age of the oldest
    one.

    OK keeps up or catches up; WARN reads, but falls behind; STALL does not move; STOP has no member that
    could; REWIND went back; - is too early to say: two looks a second apart do not show it, --watch does.
    """
    from sluice import settings
    from sluice.ops.lag import Lag

    reader = Lag(settings.load(home=home).connection("ops"))
    console = Console()
    groups = group or []
    if watch:
        _watch(reader, groups, interval, as_json, console)
        return
    found = _look(reader, groups)
    if any(g.status is None for g in found[1]):
        time.sleep(SECOND_LOOK_SECONDS)
        found = _look(reader, groups)
    _show(console, *found, as_json)


def _look(reader: Lag, groups: list[str]) -> tuple[int, list[GroupLag]]:
    now_ms = time.time_ns() // 1_000_000
    return now_ms, reader.look(now_ms, groups, time.monotonic_ns() // 1_000_000)


def _show(console: Console, now_ms: int, found: list[GroupLag], as_json: bool) -> None:
    if as_json:
        from sluice.ops.lag import as_json as object_of

        typer.echo(json.dumps(object_of(found, now_ms)))
    else:
        said = _table(found) if found else "No consumer group has committed anything yet."
        # Rows are as wide as their names, beyond the edge of a narrow screen too: a name can be copied whole.
        wide = Measurement.get(console, console.options.update_width(WIDEST), said).maximum
        console.width = max(console.width, wide)
        console.print(said, crop=False)


def _watch(reader: Lag, groups: list[str], interval: float, as_json: bool, console: Console) -> None:
    """Until Ctrl-C. A broker that does not answer is said, and asked again."""
    try:
        if as_json:
            while True:
                _show(console, *_look(reader, groups), as_json)
                time.sleep(interval)
        with Live(Text("asking the broker ..."), console=console, auto_refresh=False) as live:
            while True:
                try:
                    live.update(_table(_look(reader, groups)[1]), refresh=True)
                except RetriableError as problem:
                    live.update(Text(str(problem), style="red"), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _table(found: list[GroupLag]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "group",
        "topic",
    ):  # whole where they are printed; folded by --watch, which has but the screen
        table.add_column(name, overflow="fold")
    table.add_column("part", no_wrap=True)
    for name in ("committed", "end", "messages", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for g in found:
        if not g.partitions:
            table.add_row(Text(line(g.group)), Text("no partition that this principal may see", style="dim"))
        for number, p in enumerate(g.partitions):
            status = "" if p.status is None else p.status.value
            table.add_row(
                Text(line(g.group)) if number == 0 else "",
                Text(line(p.topic)),
                str(p.partition),
                "-" if p.committed is None else f"{p.committed:,}",
                f"{p.end:,}",
                f"{p.messages:,}",
                _age(p.seconds),
                Text(status or "-", style=STYLES[status])
                + (f" ({p.expired:,} expired unread)" if p.expired else ""),
            )
    return table


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
