"""`python -m tests.chaos [--seed N] [--seconds S] [--rate R] [--faults kill,broker,...]`: the last line is JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from sluice.stack import control
from sluice.stack.home import Home
from sluice.stack.supervisor import start_detached
from streams.kafka.clients import Connection
from tests.chaos.faults import KINDS, ON_REQUEST
from tests.chaos.run import Options, run
from tests.chaos.scene import Ground

CLEAN = ("lost", "duplicated", "reordered", "second_payloads", "unexpected", "ledger_errors", "torn")


def main() -> int:
    """0 where nothing is lost, duplicated, reordered, torn or wrong, and every fault was recovered from."""
    options, keep = _options()
    folder = keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    home = Home(folder / "home")
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} {text}\n")
        sys.stderr.flush()

    start_detached(home, (0, 0))
    try:
        stack = home.stack()

        def connection(role: str) -> Connection:
            password = SecretStr((home.secrets / role).read_text().strip())
            return Connection(stack["bootstrap"], role, password, registry_url=stack["registry_url"])

        report = run(options, Ground(home.path, connection), folder, say)
    finally:
        control.stop(home)
    say(f"logs are in {folder}")
    sys.stdout.write(json.dumps(report) + "\n")
    return int(any(report[name] for name in CLEAN) or bool(report["not_recovered"]) or not report["drained"])


def _options() -> tuple[Options, Path | None]:
    words = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument(
        "--seconds", type=float, default=300.0, help="of faults; start, drain and audit come on top"
    )
    words.add_argument("--rate", type=float, default=5000.0, help="events a second")
    words.add_argument("--faults", default=",".join(KINDS), help=f"also: {', '.join(ON_REQUEST)}")
    words.add_argument("--keep", type=Path, help="a folder for the stack and the logs")
    words.add_argument(
        "--no-recycling",
        action="store_true",
        help="switch the rule off that guards against a late EndTxn: shows what it is for",
    )
    found = words.parse_args()
    kinds = tuple(found.faults.split(","))
    if unknown := set(kinds) - {*KINDS, *ON_REQUEST}:
        words.error(f"unknown faults: {', '.join(sorted(unknown))}")
    options = Options(found.seed, found.seconds, found.rate, kinds, recycling=not found.no_recycling)
    return options, found.keep


if __name__ == "__main__":
    sys.exit(main())
