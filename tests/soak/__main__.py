"""`python -m tests.soak [--seconds S] [--rate R] [--keep FOLDER] [--leak]`: the last line is JSON.

Ends with 0 where every bar holds; standard error says which does not. Ctrl-C ends the load early, in order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sluice.stack import control
from sluice.stack.home import Home
from sluice.stack.supervisor import start_detached
from streams.kafka.clients import Connection
from tests.chaos.scene import Ground
from tests.soak.bars import broken, fair
from tests.soak.plot import draw
from tests.soak.run import Look, Options, run

LINE_SECONDS = 30.0  # where there is no terminal


def main() -> int:
    options, keep = _options()
    folder = keep or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    home, console = Home(folder / "home"), Console(stderr=True, highlight=False)
    start_detached(home, (0, 0))
    try:
        stack = home.stack()

        def connection(role: str) -> Connection:
            password = SecretStr((home.secrets / role).read_text().strip())
            return Connection(stack["bootstrap"], role, password, registry_url=stack["registry_url"])

        columns = (TextColumn("soak"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(
            *columns, TextColumn("{task.fields[said]}"), console=console, disable=not console.is_terminal
        ) as bar:
            task, due = bar.add_task("soak", total=options.seconds, said=""), 0.0

            def say(look: Look) -> None:
                nonlocal due
                memory = ", ".join(f"{name} {mb:.0f}" for name, mb in look.mb.items())
                said = f"{look.events:,} events, {look.delay:.2f} s behind; MB: {memory}"
                bar.update(task, completed=look.seconds, said=said)
                if not console.is_terminal and look.seconds >= due:
                    due = look.seconds + LINE_SECONDS
                    console.print(f"{look.seconds:7.0f} s {said}", markup=False, soft_wrap=True)

            report, soak = run(options, Ground(home.path, connection), folder, say)
    finally:
        control.stop(home)
    draw(soak, folder / "soak.png")
    for what in (bars := broken(report)):
        console.print(f"broken: {what}", markup=False, soft_wrap=True)
    if not fair(report):
        others = f"others used {report['others_cores']} cores"
        console.print(f"not judged: lag and memory, as {others}", markup=False, soft_wrap=True)
    if keep is None:
        shutil.rmtree(home.path)
        (folder / "load.csv").unlink()
    console.print(f"plot and logs are in {folder}", markup=False, soft_wrap=True)
    sys.stdout.write(json.dumps(report | {"broken": bars, "judged_in_full": fair(report)}) + "\n")
    return int(bool(bars))


def _options() -> tuple[Options, Path | None]:
    words = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    words.add_argument("--seconds", type=float, default=3600.0, help="of steady load")
    words.add_argument("--rate", type=float, default=5000.0, help="events a second")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--keep", type=Path, help="a folder for the stack, the logs and the plot")
    words.add_argument(
        "--leak", action="store_true", help="plant a leak in the share worker: the bar must break"
    )
    found = words.parse_args()
    return Options(found.seconds, found.rate, found.seed, found.leak), found.keep


if __name__ == "__main__":
    sys.exit(main())
