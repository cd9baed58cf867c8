"""The subscriber's install is small and has no torch; the command line says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Install

BAR_MB = 220


def test_the_base_install_is_small_and_has_no_torch(install: Callable[..., Install], tmp_path: Path) -> None:
    base = install()
    site = next(base.folder.glob("lib/python*/site-packages"))
    installer = {"pip", "setuptools", "pkg_resources", "uv"}
    files = (
        file
        for file in site.rglob("*")
        if file.is_file() and file.relative_to(site).parts[0] not in installer
    )
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    assert size_mb <= BAR_MB, f"{size_mb:.0f} MB"
    for absent in ("torch", "pyarrow", "faust", "sklearn", "onnx", "uvicorn"):
        assert not (site / absent).exists(), absent


def test_the_command_line_runs_from_the_base_install(install: Callable[..., Install], tmp_path: Path) -> None:
    base = install()
    assert "publish" in base.run("sluice", "--help", home=tmp_path, cwd=tmp_path).stdout
    assert base.run("sluice", "--version", home=tmp_path, cwd=tmp_path).stdout.startswith("sluice ")


@pytest.mark.parametrize(("command", "extra"), [("up", "stack"), ("share", "share"), ("train", "trainers")])
def test_a_missing_extra_is_named(
    install: Callable[..., Install], tmp_path: Path, command: str, extra: str
) -> None:
    done = install().run(
        "sluice", command, *(["traffic.detector-counts"] if command == "share" else []),
        *(["traffic"] if command == "train" else []), home=tmp_path, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"sluicegate[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_broker_is_said_with_the_remedy(install: Callable[..., Install], tmp_path: Path) -> None:
    done = install().run(
        "sluice", "forecast", "traffic", "d-401190", home=tmp_path, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "sluice up" in done.stderr
    assert "Traceback" not in done.stderr
