"""Run by test_publish_kill.py in a process of its own: publishes, and dies by SIGKILL where it was told to.

    python -m tests.integration.publish_child HOME CONTRACT WHERE AFTER

WHERE: `open` (everything is on the broker, the transaction is open), `commit` (committed, nothing after it happened),
`never`. AFTER: in the transaction of that number, from 1.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from producers import batch
from producers.publish import publish
from producers.transaction import Transactions
from schemas.contract import load
from sluice.stack.home import Home
from streams.kafka.clients import Connection
from streams.kafka.producer import Recyclable

WHERE, AFTER = sys.argv[3], int(sys.argv[4])


class Mortal(Recyclable):
    """The real producer, which ends its process at a chosen moment."""

    count = 0

    def flush(self) -> None:
        super().flush()
        self.count += 1
        if WHERE == "open" and self.count == AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    def commit(self) -> None:
        super().commit()
        if WHERE == "commit" and self.count == AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    stack = home.stack()
    connection = Connection(
        stack["bootstrap"],
        "producer",
        SecretStr((home.secrets / "producer").read_text().strip()),
        registry_url=stack["registry_url"],
    )
    Transactions.producer = Mortal
    batch.MOST_ROWS = 700  # more transactions to die in
    publish(load(Path(sys.argv[2])), connection)


main()
