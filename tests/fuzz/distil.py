"""The corpus in the repository: few small inputs that together reach what all inputs of a run reached.

seed-*    written by the target's `seeds()`: real contracts, real events, hostile records by hand
was-*     met a defect once; never removed
others    found by fuzzing, chosen by libFuzzer's merge, the smallest first, up to LARGEST bytes a target
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import ROOT
from tests.fuzz.targets import CORPUS, TARGETS, kept, load

LARGEST = 36_000  # bytes of a target's corpus: less than 200 KB in all
STAYS = ("seed-", "was-")


def distil(name: str, folder: Path) -> str:
    """Rewrites a target's corpus from what is kept and what a run found in `folder`. Says what it did."""
    place = CORPUS / name
    place.mkdir(parents=True, exist_ok=True)
    write_seeds(name)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-merge-") as merged,
        tempfile.TemporaryDirectory() as scratch,
    ):
        stays = [path for path in kept(name) if path.name.startswith(STAYS)]
        for path in stays:  # first in the output folder: a merge adds only what these do not reach
            shutil.copy(path, merged)
        sources = [merged, str(place), str(folder / "corpus")]
        options = ["-merge=1", f"-max_len={TARGETS[name].longest}", *sources]
        command = [sys.executable, "-m", "tests.fuzz.child", name, scratch, *options]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        used = sum(path.stat().st_size for path in stays)
        for path in kept(name):
            if path not in stays:
                path.unlink()
        fresh = [path for path in Path(merged).iterdir() if not path.name.startswith(STAYS)]
        taken = 0
        for path in sorted(fresh, key=lambda path: (path.stat().st_size, path.name)):
            if used + path.stat().st_size <= LARGEST:
                shutil.copy(path, place / path.name[:12])
                used, taken = used + path.stat().st_size, taken + 1
    return f"{len(stays)} files stay, {taken} of {len(fresh)} found ones taken, {used:,} bytes"


def write_seeds(name: str) -> None:
    """`seed-*` of a target, as its module says."""
    place = CORPUS / name
    for old in place.glob("seed-*"):
        old.unlink()
    for word, data in load(name).seeds():
        (place / f"seed-{word.replace(' ', '-')}").write_bytes(data)
