"""README's three ten-minute paths, as they are written there, each from a bare install."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Install
from tests.e2e.transcript import Session, blocks, extras, missing, steps

README = (ROOT / "README.md").read_text()
MINUTES = 10
SOURCE_LINES = 600


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, install: Callable[..., Install]) -> Iterator[Path]:
    """One home for all three paths: the owner's stack is what the operator watches."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    install("share", "stack").run("sluice", "down", "--purge", home=folder, cwd=folder, check=False)


def play(
    name: str,
    install: Callable[..., Install],
    home: Path,
    cwd: Path,
    until: Callable[[Session], bool] | None = None,
) -> None:
    """Run every block of this name in one shell; fails with the first step that does not do what README shows.

    What runs in the background goes on `until` that is true.
    """
    found, session = blocks(README, name), None
    assert found, f"README has no block {name}"
    began = time.monotonic()
    try:
        for kind, text in found:
            if kind != "console":
                (cwd / "app.py").write_text(text)
                continue
            for step in steps(text):
                if step.command.startswith("pip install"):
                    assert session is None, "one install a path"
                    session = Session(install(*extras(step.command)).environment(home), cwd)
                    continue
                assert session is not None, "a path begins with its install"
                code, output = session.run(step.command, MINUTES * 60)
                assert code == 0, f"$ {step.command}\n{output}"
                absent = missing(step.expected, output)
                assert not absent, f"$ {step.command}\nnot in the output: {absent}\n{output}"
        if until is not None:
            assert session is not None
            while not until(session):
                assert time.monotonic() - began < MINUTES * 60
                time.sleep(0.5)
    finally:
        if session is not None:
            session.close()
    assert time.monotonic() - began < MINUTES * 60


def all_is_shared(session: Session) -> bool:
    """The worker that the owner started has read everything that was published."""
    code, output = session.run("sluice lag --json 2>/dev/null", 60)
    groups = json.loads(output.strip().splitlines()[-1])["groups"] if code == 0 else []
    return bool(groups) and all(group["messages"] == 0 for group in groups)


@pytest.mark.timeout(900)
def test_plug_in_a_source(install: Callable[..., Install], home: Path, tmp_path: Path) -> None:
    rows = (
        f"2026-11-{2 + i // 288:02} {i // 12 % 24:02}:{i % 12 * 5:02},north,{20 + i % 30}"
        for i in range(SOURCE_LINES)
    )
    (tmp_path / "counts.csv").write_text("time,counter,vehicles\n" + "\n".join(rows) + "\n")
    play("owner", install, home, tmp_path, until=all_is_shared)


@pytest.mark.timeout(900)
def test_watch_the_lag(install: Callable[..., Install], home: Path, tmp_path: Path) -> None:
    play("operator", install, home, tmp_path)
