"""Bare installs: the wheel in a fresh virtual environment, with the extras that README names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Install:
    """One environment with nothing but the wheel and what it asks for; the repository is not on its path."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *command: str, home: Path, cwd: Path, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` as a user of this environment would, with SLUICE_HOME set and no other setting."""
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env=self.environment(home),
            text=True,
            capture_output=True,
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(command)} -> {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False
            )
        return done

    def environment(self, home: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "XDG_CACHE_HOME") if name in os.environ}
        path = f"{self.folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {**kept, "PATH": path, "SLUICE_HOME": str(home), "COLUMNS": "120"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Install]:
    """`install("share", "stack")`: an environment with these extras, made once per set of extras."""
    made: dict[tuple[str, ...], Install] = {}

    def make(*extras: str, python: str = sys.executable) -> Install:
        known = (*extras, python)
        if known not in made:
            folder = tmp_path_factory.mktemp("-".join(extras) or "base") / "env"
            target = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
            lock = ROOT / "requirements-dev.lock"
            uv = shutil.which("uv")
            if uv:
                subprocess.run([uv, "venv", "-q", "--python", python, str(folder)], check=True)
                pip = [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python")]
            else:
                subprocess.run([python, "-m", "venv", str(folder)], check=True)
                pip = [
                    str(folder / "bin" / "python"),
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--disable-pip-version-check",
                ]
            subprocess.run([*pip, target, "-c", str(_versions(lock, tmp_path_factory))], check=True)
            made[known] = Install(folder)
        return made[known]

    return make


def _versions(lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock's versions as constraints: hashes cannot constrain a wheel built a moment ago."""
    lines = [line.rstrip("\\ ") for line in lock.read_text().splitlines() if line and line[0] not in " #"]
    file = tmp_path_factory.mktemp("constraints") / "versions.txt"
    file.write_text("\n".join(lines) + "\n")
    return file
