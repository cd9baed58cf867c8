"""One real stack, broker and registry, for all integration tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluice.stack.home import Home
from sluice.stack.supervisor import Stack
from streams.kafka.clients import Connection


@dataclass(frozen=True)
class RunningStack:
    """What a test needs of a running stack. `home` is what `SLUICE_HOME` should be."""

    home: Path
    owner: Stack

    def connection(self, role: str) -> Connection:
        """Signed in as `role`: admin, registry, producer, share, trainer, subscriber or ops."""
        return self.owner.connection(role)

    @property
    def admin(self) -> Connection:
        return self.connection("admin")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Broker and registry on free ports in a temporary folder, started once per run; shared, so use own
    names.
    """
    home = Home(tmp_path_factory.mktemp("stack"))
    owner = Stack(home)
    owner.start()
    try:
        yield RunningStack(home.path, owner)
    finally:
        owner.stop()
