"""The folder of one stack: what lies where, and the small files by which its processes find each other.

- `stack.json`: address, cluster id, ports and process ids; written by `up`, read by every other command
- `secrets/<role>`: one password per principal, 0600
- `config/`: broker.properties (holds the broker's own password, 0600), log4j2.properties
- `data/`: the broker's log directory
- `logs/`: broker.log and registry.log (rotated), start-up output
- `run/`: stack.lock (held by the supervisor), `<role>-<pid>.json` of every running role
- `keys/`, `signers/`: noise key chains and model keys; never touched from here, not even by `down --purge`
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Home:
    """Names of the files under one `$SLUICE_HOME`; making the object touches nothing."""

    path: Path

    @property
    def stack_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def config(self) -> Path:
        return self.path / "config"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    def create(self) -> None:
        """Make the folders, closed to other users. Raises ConfigurationError where it may not."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.secrets, self.config, self.data, self.logs, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as problem:
            raise ConfigurationError(
                f"The folder {self.path} cannot be used: {problem.strerror}.",
                "Set SLUICE_HOME or --home to a folder that you may write to.",
            ) from None

    def stack(self) -> dict[str, Any]:
        """The content of stack.json, empty where there is none. Raises ConfigurationError if damaged."""
        try:
            found = json.loads(self.stack_file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise ConfigurationError(
                f"{self.stack_file} is damaged.", "Delete it; the next `sluice up` writes it anew."
            )
        return found

    def write_stack(self, content: dict[str, Any]) -> None:
        """Replace stack.json in one step, so that no reader sees half of it."""
        write_private(self.stack_file, json.dumps(content, indent=2) + "\n")


def write_private(file: Path, text: str) -> None:
    """Write `text` so that it is never readable by others and never half there (0600, rename)."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
        os.replace(name, file)  # noqa: PTH105 - `name` is mkstemp's string
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
