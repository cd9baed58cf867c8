"""Settings from the environment, as a service manager or a container passes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluice.settings import Settings


def settings(**given: Any) -> Settings:
    return Settings(**given)


def test_an_empty_variable_is_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container passes `SLUICE_USERNAME: ${SLUICE_USERNAME}` on as an empty one."""
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    for name in ("BOOTSTRAP", "USERNAME", "PASSWORD_FILE", "CA_FILE", "PROTOCOL"):
        monkeypatch.setenv(f"SLUICE_{name}", "")
    found = settings()
    assert (found.bootstrap, found.username, found.password_file, found.ca_file) == (None, None, None, None)
    assert (found.home, found.protocol) == (tmp_path, "SASL_PLAINTEXT")


def test_the_stack_s_own_file_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.json").write_text('{"bootstrap": "127.0.0.1:1", "registry_url": "http://127.0.0.1:2"}')
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_BOOTSTRAP", "broker.example:9092")
    assert settings().bootstrap == "broker.example:9092"
    assert settings(bootstrap="other.example:9092").bootstrap == "other.example:9092"
    assert settings().registry_url == "http://127.0.0.1:2"
