"""The whole registry, over HTTP, on a log in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.stack.registry import listen, server
from sluice.stack.registry_access import ROLES
from sluice.stack.registry_memory import MemoryLog
from sluice.stack.registry_service import Registry
from tests.registry_door import Door
from tests.registry_suite import RegistryBehaviour


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    secrets = tmp_path_factory.mktemp("secrets")
    for role in ROLES:
        (secrets / role).write_text(f"password-of-{role}\n")
    with listen("127.0.0.1", 0) as listener:
        registry = Registry(MemoryLog())
        found = server(registry, Path(secrets), 10.0)
        thread = threading.Thread(target=found.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not registry.ready:
                time.sleep(0.01)
            yield Door(f"http://127.0.0.1:{listener.getsockname()[1]}", secrets)
        finally:
            found.should_exit = True
            thread.join(10)


class TestInMemory(RegistryBehaviour):
    @pytest.fixture
    def door(self, served: Door) -> Door:
        return served
