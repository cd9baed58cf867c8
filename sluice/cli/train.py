"""`sluice train`: keep a task's models up to date, in the foreground."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sluice.settings import Settings
    from trainers.spec import TaskSpec
    from trainers.trainer import Candidate
    from trainers.worker import Progress


def train(
    task: Annotated[str, typer.Argument(help="A task file, or the name of a shipped one.")],
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when every shared record is learned.")
    ] = False,
    opening: Annotated[
        bool, typer.Option("--open/--no-open", help="Open topics, rights and schemas first, as admin.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: each release, each refusal, the end.")
    ] = False,
    batch_records: Annotated[
        int | None, typer.Option(min=1, hidden=True, help="Records of one transaction, at most.")
    ] = None,
    plant_worse: Annotated[
        int, typer.Option(min=0, hidden=True, help="Damage this candidate, to see the gate refuse it.")
    ] = 0,
) -> None:
    """Learn from shared topics; publish forecasts, and signed releases that pass the gate.

    It goes on where it stopped, also after a crash: nothing is learned twice, nothing is published twice.
    """
    from sluice import settings
    from sluice.stack.runs import running
    from trainers.memory import give_large_blocks_back
    from trainers.release import damaged
    from trainers.train import TUNING
    from trainers.train import train as run

    give_large_blocks_back()
    spec, here, console = find_task(task), settings.load(), _console()
    if opening:
        _open(here, spec)
    with (
        running(here.home, "train", spec.task),
        _stopped_by_signals() as stopping,
        _shown(console, spec, as_json, here.home) as progress,
    ):
        end = run(
            spec,
            here.connection("trainer"),
            home=here.home,
            stopping=stopping,
            until_caught_up=until_caught_up,
            progress=progress,
            tuning=replace(TUNING, batch_records=batch_records or TUNING.batch_records),
            tamper=(lambda number, graph: damaged(graph) if number == plant_worse else graph),
        )
    if as_json:
        typer.echo(json.dumps({"event": "end"} | _plain(end)))
    else:
        console.print(f"learned {end.events:,} events; {_said(end)}", markup=False)


def _console() -> Console:
    import sys

    from sluice.cli.screen import Forgiving

    return Console(file=cast(IO[str], Forgiving(sys.stderr)), highlight=False)


def find_task(task: str) -> TaskSpec:
    """The task in a file, or a shipped one by its name. Raises ConfigurationError."""
    import trainers
    from schemas.errors import ConfigurationError
    from trainers.spec import load

    file = Path(task).expanduser()
    if file.is_file():
        return load(file)
    shipped = Path(trainers.__file__).parent / "tasks"
    names = sorted(found.stem for found in shipped.glob("*.yaml"))
    if task not in names:
        raise ConfigurationError(
            f"There is no task file {task} and no shipped task of that name.",
            f"Name a YAML file, or one of the shipped ones: {', '.join(names)}.",
        )
    return load(shipped / f"{task}.yaml")


def _open(here: Settings, spec: TaskSpec) -> None:
    from sluice.cli.opening import admin_of
    from sluice.stack.provision import open_task
    from trainers.shared import shared_topic
    from trainers.train import schemas

    admin = admin_of(here)
    if admin is not None:
        open_task(spec.task, [shared_topic(contract) for contract in spec.contracts], admin, schemas(spec))


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    stopping = threading.Event()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def heard(number: int, _: object) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    for each in before:
        signal.signal(each, heard)
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _shown(
    console: Console, spec: TaskSpec, as_json: bool, home: Path
) -> Iterator[Callable[[Progress], None]]:
    """Releases and refusals as lines; on a terminal also where the trainer stands."""
    import structlog
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from sluice.cli.away import Away

    structlog.configure(
        processors=[Away(home), _to(console)],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        cache_logger_on_first_use=False,
    )
    columns = (SpinnerColumn(), TextColumn(f"train {spec.task}"), TextColumn("{task.fields[said]}"))
    live = console.is_terminal and not as_json
    with Bar(*columns, TimeElapsedColumn(), console=console, disable=not live, transient=True) as bar:
        row = bar.add_task("train", total=None, said="waiting for shared records")

        def progress(now: Progress) -> None:
            for candidate in now.candidates:
                if as_json:
                    typer.echo(json.dumps(_candidate(candidate)))
                else:
                    console.print(_line(candidate), markup=False)
            bar.update(row, said=f"{now.events:,} events, {_said(now)}")

        yield progress


def _to(console: Console) -> Callable[..., Any]:
    import structlog

    def write(_: Any, level: str, event: dict[str, Any]) -> str:
        said = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        console.print(f"{level}: {event.get('event')} {said}".rstrip(), markup=False)
        raise structlog.DropEvent

    return write


def _said(now: Progress) -> str:
    parts = [f"version {now.version}", f"{now.released} released, {now.refused} refused"]
    parts += [f"as of {_time(now.as_of_ms)}"] if now.as_of_ms is not None else []
    parts += [f"{now.unread:,} unreadable"] if now.unread else []
    parts += [f"{now.late:,} late"] if now.late else []
    return ", ".join(parts)


def _time(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _line(candidate: Candidate) -> str:
    if candidate.manifest is None:
        why = [reason for reason in candidate.verdict.reasons if reason.startswith("refused")]
        return f"candidate {candidate.number} refused by the gate: {'; '.join(why)}"
    scores, manifest = candidate.scores, candidate.manifest
    fresh = scores.fresh
    rival = (
        ""
        if fresh is None
        else f"; on {fresh.count} newer ones {fresh.learner:.2f}, champion {fresh.champion:.2f}"
    )
    return (
        f"release {manifest.release} as of {manifest.as_of:%Y-%m-%d %H:%MZ}: MAE {scores.learner:.2f} on "
        f"{scores.count} shared labels (seasonal-naive {scores.seasonal_naive:.2f}{rival})"
    )


def _candidate(candidate: Candidate) -> dict[str, Any]:
    from dataclasses import asdict

    manifest = candidate.manifest
    return {
        "event": "refused" if manifest is None else "release",
        "candidate": candidate.number,
        "version": None if manifest is None else manifest.version,
        "release": None if manifest is None else manifest.release,
        "as_of": None if manifest is None else manifest.as_of.isoformat(),
        "scores": asdict(candidate.scores),
        "reasons": list(candidate.verdict.reasons),
    }


def _plain(now: Progress) -> dict[str, Any]:
    from dataclasses import fields

    return {each.name: getattr(now, each.name) for each in fields(now) if each.name != "candidates"}
