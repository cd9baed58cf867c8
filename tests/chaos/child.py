"""The sluice command with the rule switched off that a disturbed producer begins nothing more (producer.py).

Only to show that the EndTxn fault bites: `python -m tests.chaos.child share ...`.
"""

from __future__ import annotations

from streams.kafka.producer import Recyclable


def main() -> None:
    def never(self: Recyclable) -> bool:
        self._producer.poll(0)
        return False

    Recyclable.disturbed = never  # type: ignore[method-assign]
    from sluice.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
