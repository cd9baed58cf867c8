"""`python -m tests.chaos [--seed N] [--seconds S] [--faults kill,broker,...]`, or `--kills 100 --broker-kills 10`, or
`--endtxn 50`: the last line is JSON."""

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
from tests.chaos.plans import KINDS, ON_REQUEST, Fault, endtxns, kills
from tests.chaos.run import CLEAN, Options, run
from tests.chaos.scene import Ground

A_FAULT_SECONDS = 16.0  # at most, on average


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
    return int(
        any(report.get(name) for name in CLEAN) or bool(report["not_recovered"]) or not report["drained"]
    )


def _options() -> tuple[Options, Path | None]:
    words = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--seconds", type=float, help="of faults, 300; start, drain and audit come on top")
    words.add_argument(
        "--kills", type=int, help="so many processes killed at random, and rebalances in between"
    )
    words.add_argument("--broker-kills", type=int, default=0, help="with --kills: so many brokers as well")
    words.add_argument("--endtxn", type=int, help="so many ends of transactions held back 30 s")
    words.add_argument("--no-trainer", action="store_true")
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
    script: list[Fault] = []
    if found.kills is not None:
        script += kills(found.seed, found.kills, found.broker_kills)
    if found.endtxn is not None:
        script += endtxns(found.seed, found.endtxn)
    seconds = found.seconds or (A_FAULT_SECONDS * len(script) if script else 300.0)
    options = Options(
        found.seed,
        seconds,
        found.rate,
        kinds,
        script,
        recycling=not found.no_recycling,
        trainer=not found.no_trainer,
    )
    return options, found.keep


if __name__ == "__main__":
    sys.exit(main())
