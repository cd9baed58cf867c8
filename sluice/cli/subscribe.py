"""`sluice subscribe` and `sluice forecast`: what an app would see of a task's models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.errors import RetriableError
from sluice.cli.screen import line

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainers.serving import Model
    from trainers.subscriber import Forecast, Subscription, Update

Task = Annotated[str, typer.Argument(help="Name of the task.")]
PublicKey = Annotated[
    Path | None,
    typer.Option(help="The trainer's .pub file; default: signers/TASK.pub in the home, else the first seen."),
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the first verified model.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object for each forecast.")]
Name = Annotated[str | None, typer.Option(help="Name of this subscriber in acks; default: the host's.")]
SHOWN = 20

error = Console(stderr=True, highlight=False)


def subscribe(
    task: Task,
    key: Annotated[
        list[str] | None, typer.Option(help="Only these keys; may be given several times.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the first model.")] = False,
    as_json: AsJson = False,
    public_key: PublicKey = None,
    timeout: Timeout = 30.0,
    name: Name = None,
) -> None:
    """Follow a task's signed models and print forecasts: at first, and after every release.

    A release that does not hold is refused, with the reason, and the model before stays in use.
    """
    from sluice import settings
    from sluice.stack.runs import running

    with (
        running(settings.load().home, "subscribe", task),
        _follow(task, public_key, timeout, name, _told) as subscription,
    ):
        subscription.wait(0, timeout)
        _tell_signer(subscription)
        version = 0
        while True:
            model = _next(subscription, version)
            version = model.manifest.version
            known = list(model.keys)
            wanted = key or known[:SHOWN]
            _print(
                [model.forecast(one) for one in wanted], as_json, len(known) - len(wanted) if not key else 0
            )
            if once:
                return


def forecast(
    task: Task,
    key: Annotated[str, typer.Argument(help="Key to forecast.")],
    as_json: AsJson = False,
    public_key: PublicKey = None,
    timeout: Timeout = 30.0,
) -> None:
    """One forecast for one key from the newest verified model."""
    with _follow(task, public_key, timeout, None, _told) as subscription:
        _print([subscription.forecast(key)], as_json, 0)


def _next(subscription: Subscription, version: int) -> Model:
    """The next model, however long that takes; an outage is said, and its end, each in one line."""
    said = False
    while True:
        try:
            model = subscription.wait(version, 1.0)
        except RetriableError:
            problem = subscription.problem
            if problem is not None and not said:
                error.print(
                    line(f"{getattr(problem, 'message', problem)} The model stays in use."), markup=False
                )
            elif problem is None and said:
                error.print("The broker answers again.")
            said = problem is not None
        else:
            if said:
                error.print("The broker answers again.")
            return model


def _follow(
    task: str, public_key: Path | None, timeout: float, name: str | None, told: Callable[[Update], None]
) -> Subscription:
    import structlog

    from sluice import settings
    from trainers.subscriber import subscribe as follow

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # `_told` says it
    here = settings.load()
    return follow(
        task,
        here.connection("subscriber"),
        home=here.home,
        public_key=public_key,
        name=name,
        timeout_seconds=timeout,
        on_update=told,
    )


def _told(update: Update) -> None:
    if not update.applied:
        error.print(line(f"refused {update.release or 'a release'}: {update.reason}"), markup=False)


def _tell_signer(subscription: Subscription) -> None:
    pin = subscription.pin
    where = {
        "argument": "the key you named",
        "trainer": "the trainer's own key in this home",
        "remembered": "the key remembered in this home",
        "first-use": "trusted on first use and remembered; compare it with the trainer's",
    }[pin.origin]
    error.print(f"signed by {pin.fingerprint} ({where})", markup=False)


def _print(forecasts: list[Forecast], as_json: bool, left_out: int) -> None:
    if as_json:
        for one in forecasts:
            typer.echo(one.json())
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        for one in forecasts:
            typer.echo(line(one))
        return
    first = forecasts[0]
    promise = (
        f"epsilon {first.epsilon} per {first.protects}" if first.epsilon is not None else "shared openly"
    )
    title = Text(line(f"{first.task} v{first.version}, {promise}"))
    table = Table(title=title, title_justify="left")
    for column in ("key", "for (UTC)", "as of (UTC)", "forecast", f"{first.level:.0%} interval"):
        table.add_column(column, justify="left" if column == "key" else "right")
    for one in forecasts:
        times = (f"{time:%Y-%m-%d %H:%M}" for time in (one.target, one.as_of))
        table.add_row(Text(line(one.key)), *times, f"{one.value:.1f}", f"{one.low:.1f} to {one.high:.1f}")
    console.print(table)
    if left_out > 0:
        console.print(f"and {left_out:,} more keys; choose with --key", markup=False)
