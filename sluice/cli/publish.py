"""`sluice publish`: a contract's source into its raw topic, with a progress bar and an honest summary."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from sluice.cli.screen import Forgiving

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, MutableMapping
    from contextlib import AbstractContextManager

    from producers.publish import Report, Seen
    from schemas.contract import Contract
    from sluice.settings import Settings


def publish(
    contract: Annotated[str, typer.Argument(help="A contract file, or the name of a shipped one.")],
    source: Annotated[
        Path | None,
        typer.Option(help="Another file than the contract's; its name has a position of its own."),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.0, help="At most so many events a second.")] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.0, help="Replay so many times faster than event time; 0: no pause.")
    ] = None,
    follow: Annotated[
        bool | None, typer.Option("--follow/--no-follow", help="Go on as the file grows, until stopped.")
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget the stored position of this source.")
    ] = False,
    opening: Annotated[
        bool, typer.Option("--open/--no-open", help="Open topics, rights and schemas first, as admin.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Open a contract's topics and publish its source into raw.

    A second run goes on where the first one stopped, also after a crash: nothing lost, nothing twice.
    """
    from producers.publish import check, source_spec
    from producers.publish import publish as run
    from schemas.contract import load
    from sluice import settings
    from sluice.cli.opening import open_contract
    from sluice.stack.runs import running

    found = load(contract)
    check(found, source_spec(found, source, follow))
    here = settings.load()
    connection = here.connection("producer")
    console = Console(file=cast(IO[str], Forgiving(sys.stderr)), highlight=False)
    _log_to(console, here.home)
    with (
        _slot(here, found, source),
        running(here.home, "publish", found.contract),
        _stopped_by_signals() as (stop, heard),
    ):
        if opening:
            open_contract(here, found)
        with _progress(console) as shown:
            report = run(
                found,
                connection,
                source=source,
                rate=rate,
                speed=speed,
                follow=follow,
                from_start=from_start,
                progress=shown,
                stop=stop,
            )
    if as_json:
        typer.echo(json.dumps(_plain(report)))
    else:
        _summary(console, report, bool(heard))
    if signal.SIGINT in heard:
        raise typer.Exit(130)  # SIGTERM is how a service is ended in order: 0


def _slot(here: Settings, contract: Contract, source: Path | None) -> AbstractContextManager[object]:
    """One publisher for each source on this machine; elsewhere the broker fences."""
    from streams.kafka.slots import Slot

    name = (source or contract.source.path).name
    return Slot(here.home, f"publish.{contract.contract}.{name}", 0)


def _log_to(console: Console, home: Path) -> None:
    """Warnings of the parts below, beside the progress bar and never on standard output."""
    import structlog

    from sluice.cli.away import Away

    def write(_: object, level: str, event: MutableMapping[str, Any]) -> str:
        said = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        console.print(f"{level}: {event.get('event')} {said}".rstrip(), markup=False)
        raise structlog.DropEvent

    structlog.configure(
        processors=[Away(home), write],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        cache_logger_on_first_use=False,
    )


def _stopped_by_signals() -> AbstractContextManager[tuple[threading.Event, list[int]]]:
    """An event that the first SIGINT or SIGTERM sets, and the signals heard; a second one ends the process at
    once.
    """
    import threading
    from contextlib import contextmanager

    @contextmanager
    def scope() -> Iterator[tuple[threading.Event, list[int]]]:
        stop, signals = threading.Event(), list[int]()
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

        def heard(number: int, _: object) -> None:
            signals.append(number)
            stop.set()
            signal.signal(number, signal.SIG_DFL)

        for each in before:
            signal.signal(each, heard)
        try:
            yield stop, signals
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    return scope()


def _progress(console: Console) -> AbstractContextManager[Callable[[Seen], None]]:
    """A bar over the source's extent, with the rate of events."""
    import time
    from contextlib import contextmanager

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    @contextmanager
    def bar() -> Iterator[Callable[[Seen], None]]:
        columns = (
            TextColumn("publish"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("publish", total=None, said="")
            began: list[tuple[float, int]] = []

            def shown(seen: Seen) -> None:
                if not began:
                    began.append((time.monotonic(), seen.published))
                start, first = began[0]
                rate = (seen.published - first) / max(time.monotonic() - start, 1e-9)
                said = f"{seen.published:,} events" + (f", {rate:,.0f}/s" if seen.published > first else "")
                said += f", {seen.rejected:,} rejected" if seen.rejected else ""
                progress.update(task, completed=seen.at, total=seen.size or None, said=said)

            yield shown

    return bar()


def _plain(report: Report) -> dict[str, Any]:
    tally = report.tally
    return {
        "contract": report.contract,
        "source": report.source,
        "topic": report.topic,
        "published": tally.published,
        "rejected": tally.rejected,
        "first_rejected": [
            {"line": broken.row.number, "reason": broken.reason, "field": broken.field}
            for broken in tally.first
        ],
        "unreadable": tally.unreadable,
        "clocks": tally.clocks,
        "resumed_from": report.resumed_from,
        "recovered": report.recovered,
        "notices": report.notices,
        "seconds": round(report.seconds, 3),
    }


def _summary(console: Console, report: Report, stopped: bool) -> None:
    tally = report.tally
    said = [f"published {tally.published:,} events into {report.topic} in {report.seconds:.1f} s"]
    if report.resumed_from:
        said.append(f"resumed behind line {report.resumed_from:,}, where an earlier run had stopped")
    if stopped:
        said.append(f"interrupted after {tally.published:,} events; run it again to go on")
    elif not tally.published and not tally.rejected:
        said.append("nothing new in the source")
    for name, count in tally.unreadable.items():
        said.append(f"{count:,} unreadable cells of {name}: null in raw, shared as the declared default")
    if tally.rejected:
        said.append(f"rejected {tally.rejected:,} rows, now in the dead-letter topic; the first:")
        for broken in tally.first:
            said.append(
                f"  line {broken.row.number:,}: {broken.reason}" + (f" ({broken.field})" * bool(broken.field))
            )
    if report.recovered:
        said.append(f"recovered {report.recovered} times from a disturbed transaction")
    for line in said + report.notices:
        console.print(line, markup=False, soft_wrap=True)
