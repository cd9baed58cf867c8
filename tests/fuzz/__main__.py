"""`python -m tests.fuzz [--target codec,http] [--seconds 600] [--seed N] [--jobs 2] [--keep FOLDER]`: the last line is
JSON."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import campaign, distil
from tests.fuzz.targets import TARGETS


def main() -> int:
    """0 where nothing was found, 1 where something was, 2 where atheris is missing."""
    options = _options()
    if not campaign.usable():
        sys.stderr.write(
            f"error: {campaign.MISSING}\n  -> run this on such a machine, with the extra `dev`\n"
        )
        return 2
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    say(
        f"{', '.join(options.target)}: {options.seconds:.0f} s each, {options.jobs} at a time, seed {options.seed}"
    )
    outcomes = campaign.run(
        options.target, options.seconds, options.seed, options.jobs, folder.absolute(), say
    )
    for outcome in outcomes:
        for name in outcome.findings:
            say(f"found: {outcome.folder / name}")
        if options.distil:
            say(f"{outcome.target}: {distil.distil(outcome.target, outcome.folder)}")
    say(f"inputs, findings and logs are in {folder}")
    report = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "executions": sum(outcome.executions for outcome in outcomes),
        "crashes": sum(len(outcome.findings) for outcome in outcomes),
        "targets": {outcome.target: outcome.report() for outcome in outcomes},
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return int(bool(report["crashes"]))


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    words.add_argument("--target", default=",".join(TARGETS), help="default: all, one after the other")
    words.add_argument("--seconds", type=float, default=600.0, help="for each target")
    words.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    words.add_argument("--jobs", type=int, default=2, help="targets at a time")
    words.add_argument(
        "--keep", type=Path, help="a folder for inputs and findings; used again, it goes on there"
    )
    words.add_argument("--distil", action="store_true", help="then rewrite the corpus in the repository")
    found = words.parse_args()
    found.target = found.target.split(",")
    if unknown := set(found.target) - set(TARGETS):
        words.error(f"unknown targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
