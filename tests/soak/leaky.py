"""The sluice command with a leak planted: every record that a batch decodes is kept. Shows that the soak notices.

`python -m tests.soak.leaky share ...`
"""

from __future__ import annotations

from streams.agents.hop import DecodedRecords, Hop
from streams.kafka.records import Records

KEPT: list[list[bytes | None]] = []


def main() -> None:
    decode = Hop.decode

    def keeping(self: Hop, records: Records) -> DecodedRecords:
        KEPT.append(list(records.values))
        return decode(self, records)

    Hop.decode = keeping  # type: ignore[method-assign]
    from sluice.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
