"""Targets side by side, each in a process of its own; what is said meanwhile, and the report."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz.targets import CORPUS, TARGETS, load

ROOT = Path(__file__).parents[2]
STARTS = 5  # times that a target whose process ends begins again within its time
HANG_SECONDS = 120  # of wall clock for one input; CPU time has a closer bound
MEMORY_MB = 2048
_STATE = re.compile(r"#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\d+)([KMb])")
_STAT = re.compile(r"stat::(\w+):\s+(\d+)")
_ENDED = ("crash-", "timeout-", "oom-", "leak-")
MISSING = "atheris is not installed: it has wheels for Linux on x86-64 only"


def usable() -> bool:
    """Whether atheris is here."""
    return find_spec("atheris") is not None


@dataclass(slots=True)
class Outcome:
    """What one target's run came to. `edges` and `features`: libFuzzer's counts of what the inputs reached."""

    target: str
    folder: Path
    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    peak_rss_mb: int = 0
    slowest_s: int = 0
    seconds: float = 0.0
    restarts: int = 0
    log: list[str] = field(default_factory=list)
    _before: int = 0

    @property
    def findings(self) -> list[str]:
        """Files of what was found: an oracle's no, an exception, a dead process."""
        names = (path.name for path in self.folder.iterdir() if path.suffix != ".txt")
        return sorted(name for name in names if name.startswith(("finding-", *_ENDED)))

    def hear(self, line: str) -> None:
        """Takes in one line of libFuzzer's."""
        if found := _STATE.match(line):
            self.executions = self._before + int(found[1])
            self.edges, self.features = (
                max(a, int(b)) for a, b in zip((self.edges, self.features), found.group(2, 3), strict=True)
            )
            self.corpus = int(found[4])
        elif found := _STAT.match(line):
            if found[1] == "number_of_executed_units":
                self.executions = self._before + int(found[2])
            elif found[1] == "peak_rss_mb":
                self.peak_rss_mb = max(self.peak_rss_mb, int(found[2]))
            elif found[1] == "slowest_unit_time_sec":
                self.slowest_s = max(self.slowest_s, int(found[2]))
        self.log = [*self.log[-199:], line]

    def report(self) -> dict[str, Any]:
        """As JSON has it. `corpus`: inputs that the run held at its end; `corpus_kept`: those in the repository."""
        kept = [path for path in (CORPUS / self.target).glob("*") if path.is_file()]
        return {
            "executions": self.executions,
            "executions_per_s": round(self.executions / self.seconds, 1) if self.seconds else 0.0,
            "edges": self.edges,
            "features": self.features,
            "crashes": len(self.findings),
            "corpus": self.corpus,
            "corpus_kept": len(kept),
            "corpus_kept_bytes": sum(path.stat().st_size for path in kept),
            "peak_rss_mb": self.peak_rss_mb,
            "seconds": round(self.seconds, 1),
            **({"found": self.findings} if self.findings else {}),
        }


def run(
    names: Sequence[str], seconds: float, seed: int, jobs: int, folder: Path, say: Callable[[str], None]
) -> list[Outcome]:
    """Fuzzes each target for `seconds`, `jobs` at a time; `folder` gets inputs and findings, one folder each."""
    outcomes = []
    for name in names:
        (folder / name / "corpus").mkdir(parents=True, exist_ok=True)
        outcomes.append(Outcome(name, folder / name))
    done = threading.Event()
    ticker = threading.Thread(target=_tell, args=(outcomes, seconds, say, done), daemon=True)
    ticker.start()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda outcome: one(outcome, seconds, seed), outcomes))
    done.set()
    ticker.join()
    return outcomes


def one(outcome: Outcome, seconds: float, seed: int) -> None:
    """One target for its time. A process that ends early begins again, with another seed."""
    began = time.monotonic()
    words = outcome.folder / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in load(outcome.target).WORDS or (b"\0",)))
    while (
        outcome.restarts < STARTS
        and (left := seconds - outcome.seconds) >= 1
        and not (outcome.restarts and left < 5)
    ):
        outcome._before = outcome.executions
        target = TARGETS[outcome.target]
        code = _child(
            outcome,
            [
                *(str(path) for path in (outcome.folder / "corpus", CORPUS / outcome.target)),
                f"-max_total_time={left:.0f}",
                f"-seed={seed + outcome.restarts or 1}",
                f"-max_len={target.longest}",
                f"-dict={words}",
                f"-timeout={HANG_SECONDS}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-artifact_prefix={outcome.folder}/",
                "-print_final_stats=1",
                "-len_control=10",
                "-reload=0",
            ],
        )
        outcome.seconds = time.monotonic() - began
        if code == 0:
            return
        outcome.restarts += 1
        if not any(name.startswith(_ENDED) for name in outcome.findings):
            (outcome.folder / f"crash-exit{code}").write_text("\n".join(outcome.log))


def _child(outcome: Outcome, options: list[str]) -> int:
    command = [sys.executable, "-m", "tests.fuzz.child", outcome.target, str(outcome.folder), *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stderr is not None
    try:
        with process.stderr, (outcome.folder / "log.txt").open("a") as log:
            for line in process.stderr:
                log.write(line)
                outcome.hear(line.rstrip())
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _tell(outcomes: list[Outcome], seconds: float, say: Callable[[str], None], done: threading.Event) -> None:
    began = time.monotonic()
    while not done.wait(10.0):
        for outcome in outcomes:
            if outcome.executions and not outcome.seconds:
                say(
                    f"{time.monotonic() - began:6.0f} s  {outcome.target:9} {outcome.executions:>10,} executions  "
                    f"{outcome.edges:,} edges  {outcome.features:,} features  {outcome.corpus:,} inputs  "
                    f"{len(outcome.findings)} findings"
                )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
