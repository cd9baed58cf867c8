"""`sluice doctor`: what is torn, in plain words, and its repair on request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from schemas.errors import ConfigurationError
from sluice.cli.screen import line

if TYPE_CHECKING:
    from sluice.ops.doctor import Report
    from sluice.ops.doctor_rules import Problem

ROUNDS = 3  # a tear behind a transaction shows once that is aborted


def doctor(
    contract: Annotated[
        str | None, typer.Argument(help="A contract's file or name; default all that this broker holds.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Do what it proposes; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    older: Annotated[
        float | None, typer.Option(min=1, help="A transaction that began so many seconds ago hangs [20].")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the stack; default $SLUICE_HOME.")] = None,
) -> None:
    """What is torn in a contract's topics and share group, what readers see of it, what a repair would do.

    Ends with 0 where all is well (after --repair too), with 1 where something is not. It looks while workers run;
    --repair wants them stopped.
    """
    from sluice import settings
    from sluice.cli.opening import admin_of
    from sluice.ops import doctor as ops

    if repair and as_json and not yes:
        raise ConfigurationError("--repair --json asks no question.", "Add --yes to repair without one.")
    here = settings.load(home=home)
    found = ops.Doctor(
        admin_of(here) or here.connection("admin"), ops.OLDER_SECONDS if older is None else older
    )
    name = None if contract is None else _name(contract)
    console, done = Console(highlight=False, soft_wrap=True), []

    def look() -> list[Report]:
        return found.look(time.time_ns() // 1_000_000, name)

    reports = look()
    for _ in range(ROUNDS if repair else 0):
        able = [report for report in reports if any(problem.repair for problem in report.problems)]
        if not able:
            break
        if not as_json:
            _show(console, reports)
        if not yes:
            typer.confirm("Repair this now?", abort=True)
        for report in able:
            for each in found.repair(report):
                done.append(each)
                if not as_json:
                    console.print(f"repaired: {line(each)}", markup=False)
        reports = look()
    if as_json:
        typer.echo(json.dumps(ops.as_json(reports, done, time.time_ns() // 1_000_000)))
    else:
        _show(console, reports)
    raise typer.Exit(1 if any(report.problems for report in reports) else 0)


def _name(contract: str) -> str:
    """Of a contract that is named by its file, or by its name, which need not be a file here."""
    if Path(contract).suffix not in (".yaml", ".yml"):
        return contract
    from schemas.contract import load

    return load(contract).contract


def _show(console: Console, reports: list[Report]) -> None:
    if not reports:
        console.print("No contract is open on this broker.")
    for report in reports:
        workers = f"{report.members} member(s), {report.state.lower()}" if report.members else "no worker"
        verdict = f"{len(report.problems)} problem(s)" if report.problems else "nothing is torn"
        console.print(
            f"{line(report.place.contract)}: {verdict} ({report.partitions} partition(s); group: {workers})",
            markup=False,
        )
        for problem in report.problems:
            _tell(console, problem)


def _tell(console: Console, problem: Problem) -> None:
    console.print(f"\n  {line(problem.what)}", markup=False)
    for name, text in (("readers", problem.readers), ("repair", problem.repair), ("else", problem.remedy)):
        if text:
            console.print(f"    {name + ':':9}{line(text)}", markup=False)
    if problem.again:
        console.print("    twice:   what comes again out of raw may already be among", markup=False)
        for span in problem.again:
            console.print(f"             {line(span)}", markup=False)
        console.print(
            "             with the same key and the same bytes, as noise is keyed by the event: drop repeats of both.",
            markup=False,
        )
