"""sluice up | down | status"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from sluice.stack.control import Status
    from sluice.stack.home import Home
    from sluice.stack.jars import Progress as Report

HomeOption = Annotated[Path | None, typer.Option(help="folder of the stack [SLUICE_HOME, ~/.sluice]")]
console = Console(stderr=True, highlight=False)


def up(
    home: HomeOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="broker; 0 takes a free one [9092]")
    ] = None,
    registry_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="registry; 0 takes a free one [8081]")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="leave it running in the background")
    ] = False,
) -> None:
    """Start broker and registry, secured, with no Java, Docker or root. A second start resumes.

    Stays in the foreground and stops the stack on Ctrl-C, unless --detach.
    """
    from sluice.stack import supervisor
    from sluice.stack.supervisor import AlreadyRunningError, Stack

    folder = _home(home)
    ports = supervisor.ports_of(folder, port, registry_port)
    _announce_download()
    try:
        if detach:
            with _bar() as report:
                supervisor.start_detached(folder, ports, report)
            _show_ready(folder, "It runs in the background; `sluice down` stops it.")
            return
        stack = Stack(folder, *ports)
        with _bar() as report:
            stack.start(report)
    except AlreadyRunningError as problem:
        console.print(f"{problem.message}\n  -> {problem.remedy}", markup=False)
        return
    _show_ready(folder, "Ctrl-C stops it.")
    sys.stdout.flush()
    stack.become_keeper()


def down(
    home: HomeOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="delete its data, logs and settings too")] = False,
) -> None:
    """Stop the stack of this home. Secrets and keys stay, with --purge too."""
    from sluice.stack import control

    folder = _home(home)
    if purge:
        control.check_idle(folder)  # before anything is stopped, not halfway
    stopped = control.stop(folder)
    console.print("The stack has stopped." if stopped else f"No stack runs for {folder.path}.", markup=False)
    if purge:
        for path in control.purge(folder):
            console.print(f"deleted {path}", markup=False)
        console.print("Passwords and keys stay: secrets/, keys/, signers/.", markup=False)


def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """What runs, how large it is, and whether it is ready: exit code 0, else 1."""
    from sluice.stack import control

    found = control.look(_home(home))
    if as_json:
        sys.stdout.write(json.dumps(found.plain(), indent=2) + "\n")
    else:
        _show(found)
    raise typer.Exit(0 if found.ready else 1)


def _home(named: Path | None) -> Home:
    from sluice.settings import load
    from sluice.stack.home import Home

    return Home(load(home=named).home)


def _announce_download() -> None:
    from sluice.stack import jars

    if os.environ.get("SLUICE_KAFKA_JARS"):
        return
    folder = jars.cache_folder()
    wanted = jars.missing(folder)
    if wanted:
        size = sum(jar.size for jar in wanted) / 1e6
        console.print(
            f"Apache Kafka {jars.KAFKA_VERSION}: {len(wanted)} jars, {size:.0f} MB, are downloaded once to "
            f"{folder} (about 10 s at 50 Mbit/s).",
            markup=False,
            soft_wrap=True,
        )


@contextmanager
def _bar() -> Iterator[Report]:
    """A progress bar a step; a step's `done` and `total` are bytes or small counts."""
    columns = (TextColumn("{task.description:<22}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            for name, task in tasks.items():
                if name != what:
                    progress.update(task, completed=1, total=1)
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=None)
            counted = total > 2
            progress.update(tasks[what], completed=done if counted else 0, total=total if counted else None)
            if what == "ready":
                progress.update(tasks[what], completed=1, total=1)

        yield report


def _show_ready(home: Home, what_next: str) -> None:
    from sluice.stack import disk

    stack = home.stack()
    console.print(
        f"ready: broker {stack['bootstrap']}, registry {stack['registry_url']}\n"
        f"passwords: {home.secrets}/<principal>. {what_next}",
        markup=False,
        soft_wrap=True,
    )
    if said := disk.words(home.path, disk.free(home.path), answers=True, kept=True):
        console.print(said, markup=False, soft_wrap=True)


def _show(found: Status) -> None:
    from sluice.stack import disk

    out = Console(highlight=False)
    out.print(f"Stack of {found.home}", markup=False, soft_wrap=True)  # a path to copy: never broken
    table = Table()
    table.add_column("role")
    table.add_column("of")
    table.add_column("process", justify="right")
    table.add_column("memory", justify="right")
    for run in found.processes:
        table.add_row(run.role, run.of, str(run.pid), f"{run.rss_bytes / 1e6:.0f} MB")
    table.add_section()
    table.add_row("in all", "", "", f"{found.rss_bytes / 1e6:.0f} MB")
    out.print(table)
    answer = {True: "answers", False: "does not answer"}
    out.print(
        f"broker    {found.bootstrap or '-'}  {answer[found.broker_answers]}\n"
        f"registry  {found.registry_url or '-'}  {answer[found.registry_answers]}\n"
        f"disk      data {found.disk_data_bytes / 1e6:.0f} MB, logs {found.disk_logs_bytes / 1e6:.0f} MB, "
        f"free {found.disk_free_bytes / 1e9:.1f} GB",
        markup=False,
        soft_wrap=True,
    )
    kept = any(run.role == "supervisor" for run in found.processes)
    said = disk.words(Path(found.home), found.disk_free_bytes, found.broker_answers, kept)
    if said:
        out.print(said, markup=False, soft_wrap=True)
    for file in found.open_secrets:
        out.print(f"Others can read {file}: chmod 600 it.", markup=False)
    if not found.ready and not (said and not found.broker_answers):
        out.print(_what_next(found), markup=False, soft_wrap=True)


def _what_next(found: Status) -> str:
    """For a stack that is not ready: where a supervisor runs, it starts again what ended."""
    if not any(run.role == "supervisor" for run in found.processes):
        return "Not ready. `sluice up --detach` starts it."
    answers = {"broker": found.broker_answers, "registry": found.registry_answers}
    silent = " and ".join(role for role, answer in answers.items() if not answer)
    return (
        f"Not ready: the supervisor runs, and is starting {silent} again where it has ended. "
        f"Look again in a few seconds; {found.home}/logs says why."
    )
