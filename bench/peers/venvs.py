"""Each Python peer in an environment of its own, made once from its pinned `requirements.txt` and cached."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers.arena import UnavailableError
from sluice.stack import jars

HERE = Path(__file__).parent
VERSIONS = ("3.11", "3.12")  # bytewax has no wheel for 3.13


def interpreter() -> str:
    """A Python that every peer has wheels for. Raises UnavailableError."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" in VERSIONS:
        return sys.executable
    for version in VERSIONS:
        if found := shutil.which(f"python{version}"):
            return found
    raise UnavailableError(f"no Python {' or '.join(VERSIONS)} on the path")


def python_of(peer: str) -> str:
    """The peer's own Python, installed where it is not yet. Raises UnavailableError with the installer's last words."""
    requirements = HERE / peer / "requirements.txt"
    base = interpreter()
    release = subprocess.run([base, "-VV"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(requirements.read_bytes() + release.encode()).hexdigest()[:12]
    folder = jars.cache_folder().parent / "peers" / f"{peer}-{digest}"
    python, made = folder / "bin" / "python", folder / "made"
    if made.exists():
        return str(python)
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    for words in [base, "-m", "venv", "--clear", str(folder)], [*install, "-r", str(requirements)]:
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        if run.returncode:
            raise UnavailableError(f"not installed: {(run.stderr or run.stdout).strip()[-300:]}")
    made.touch()
    return str(python)
