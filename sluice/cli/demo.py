"""`sluice demo`: the main job on real data, with progress, a table and a plot."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sluice.demo import Result, Say

STAGES = {
    "stack": "broker and registry",
    "published": "published to raw",
    "shared": "privatized to shared",
    "learned": "predicted, then learned",
    "applied": "releases applied",
    "scored": "scored by the owner",
}


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running, in SLUICE_HOME.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    output: Annotated[Path, typer.Option(help="Folder of the plot.")] = Path("demo-output"),
) -> None:
    """Real traffic counts from a file to a subscriber's forecast, behind a real wall.

    Embedded Kafka, registry, producer, share agent, trainer and subscriber, each with its own rights; then a table, a
    plot (truth, shared, forecast) and a clean stop. Takes about a minute; the first run also fetches Kafka, 43 MB.
    """
    import psutil

    from sluice import settings
    from sluice.demo import Demo

    started = psutil.Process().create_time()
    console = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as folder:
        home = settings.load().home if keep else Path(folder)
        with _progress(console) as say:
            result = Demo(home, output, say, started, keep).run()
    if as_json:
        typer.echo(result.json())
    else:
        _summary(Console(highlight=False), result, keep)


@contextmanager
def _progress(console: Console) -> Iterator[Say]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        rows = {stage: bar.add_task(words, total=None, start=False) for stage, words in STAGES.items()}

        def say(stage: str, done: float, total: float) -> None:
            name, _, detail = stage.partition(": ")
            if name not in rows:
                return
            words = detail or STAGES[name]
            bar.start_task(rows[name])
            bar.update(rows[name], completed=done, total=total, description=words)
            if done >= total:
                bar.stop_task(rows[name])

        yield say


def _summary(console: Console, result: Result, keep: bool) -> None:
    from rich.table import Table

    figures = result.traffic
    table = Table(
        title="One detector's vehicle counts, 5 minutes ahead", title_justify="left", show_header=False
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    for words, value in (
        ("events in the source", f"{figures['events_in']:,}"),
        (
            "  shared / denied / rejected",
            f"{figures['shared']:,} / {figures['denied']:,} / {figures['rejected']:,}",
        ),
        ("  lost / duplicated", f"{figures['lost']} / {figures['duplicated']}"),
        ("releases made / applied", f"{figures['releases']} / {figures['applied']}"),
        ("  planted worse candidate", _planted(figures)),
        (f"mean error, {figures['scored']:,} forecasts", f"{figures['mae']:.2f} vehicles"),
        ("  the same without noise", f"{figures['mae_without_noise']:.2f}"),
        ("  not updated after training weeks", f"{figures['mae_frozen']:.2f}"),
        ("  same slot of the season", f"{figures['mae_seasonal_naive']:.2f}"),
        ("  persistence (of the truth)", f"{figures['mae_persistence']:.2f}"),
        (
            "loss about one vehicle in one day",
            f"epsilon {figures['epsilon_per_unit']:g}, at most 2 passes assumed",
        ),
        ("first shared record after", f"{result.warm_s or result.cold_s} s"),
        ("all of it", f"{result.total_s} s"),
    ):
        table.add_row(words, value)
    console.print(table)
    console.print(f"plot: {result.plot}", markup=False)
    if keep:
        console.print(
            "The stack still runs: try `sluice forecast traffic d-401190`, `sluice lag`, `sluice down`."
        )


def _planted(figures: dict[str, object]) -> str:
    refused = figures["refused_by_gate"]
    assert isinstance(refused, list)
    return "refused by the gate" if figures["planted_worse"] in refused else "NOT refused"
