"""A contract gets a new version while events flow: nobody stops, nothing is lost or doubled, all of it can be read.

The publisher goes first, as the data changes there: for a while the contract of the workers is older than the records.
Then the workers follow, one after the other, and readers of shared find records of two schemas.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import fastavro
import pytest

from streams.kafka.clients import registry
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read
from tests.integration.pressure_help import CONTRACT, PARTITIONS, Trial, sluice, trial

MAP = "shares: {{map: {{number: number, card: card, at: at, amount: amount}}}}\n"
FIRST = CONTRACT + MAP
NEXT = (
    ("version: 1.0.0", "version: 1.1.0"),
    (
        "    amount: {type: int}",
        "    amount: {type: int}\n    note: {type: string}",
    ),  # an optional column more
    ("    amount: {count:", "    note: drop\n    amount: {count:"),
    ("amount: amount}", "amount: amount, seen: number}"),  # and an attribute more, that may be null
)
BROKEN = (("version: 1.0.0", "version: 1.2.0"), ("number: {type: int}", "number: {type: string}"))
HALF_BROKEN = (*NEXT[:3], ("amount: amount}", 'amount: "{card}"}'))  # raw may grow so, shared may not


def changed(running: Trial, name: str, *changes: tuple[str, str]) -> Path:
    text = running.file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file = running.file.parent / name
    file.write_text(text)
    return file


def versions(stack: RunningStack, topic: str) -> dict[int, Any]:
    """Schemas by id."""
    with registry(stack.admin) as client:
        found = [client.get_version(f"{topic}-value", each) for each in client.get_versions(f"{topic}-value")]
    return {
        int(each.schema_id or 0): json.loads(str(each.schema and each.schema.schema_str)) for each in found
    }


def parsed(schemas: Mapping[int, Any]) -> dict[int, Any]:
    return {id_: fastavro.parse_schema(schema) for id_, schema in schemas.items()}


def record(schemas: Mapping[int, Any], value: bytes) -> dict[str, Any]:
    id_ = int.from_bytes(value[1:5], "big")
    found: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[id_], None)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_version_under_load(stack: RunningStack, tmp_path: Path) -> None:
    with trial(stack.home, stack.connection, tmp_path / "load", contract=FIRST) as running:
        topics = running.contract.topics
        for name, changes in (("broken.yaml", BROKEN), ("half-broken.yaml", HALF_BROKEN)):
            refused = sluice(stack.home, "share", str(changed(running, name, *changes)), "--slot", "7")
            text = refused.communicate(timeout=60)[0]
            assert refused.returncode == 2, text
            assert "does not fit the versions that are registered" in text
            assert "raise the major version" in text
        assert [len(versions(stack, topic)) for topic in (topics.raw, topics.shared)] == [1, 1]
        running.back()

        newer = changed(running, "newer.yaml", *NEXT)
        assert running.processes.pop("publish").end() == 0
        running.start("publish-newer", "publish", file=newer)
        running.back()  # with workers that know nothing of it
        for slot in ("0", "1"):
            assert running.processes.pop(f"share{slot}").end() == 0
            worker = running.start(f"share{slot}-newer", "share", "--slot", slot, file=newer)
            running.back()
            assert running.until(lambda text=worker: '"assigned"' in text.text, 60)  # type: ignore[misc]
        running.back()
        readers = {topic: parsed(versions(stack, topic)) for topic in (topics.raw, topics.shared)}

        def alike(payloads: Collection[bytes]) -> bool:
            """What one version left uncommitted the next one has shared: with the same noise, if more attributes."""
            found = [record(readers[topics.shared], payload) for payload in payloads]
            return all(each | {"seen": 0} == found[0] | {"seen": 0} for each in found)

        running.check(lambda payloads: len(payloads) == 1 or alike(payloads))

        for topic, field in ((topics.raw, "note"), (topics.shared, "seen")):
            schemas = readers[topic]
            assert len(schemas) == 2
            counts: Counter[int] = Counter()
            for partition in range(PARTITIONS):
                for message in read(stack.admin, topic, partition):
                    value = message.value()
                    id_ = int.from_bytes(value[1:5], "big")
                    counts[id_] += 1
                    if counts[id_] % 100 == 1 and id_ in schemas:  # a sample: 10 us each
                        found = record(schemas, value)
                        assert (field in found) == (id_ == max(schemas))
                        if field == "seen" and field in found:
                            assert found["seen"] == found["number"]
            assert min(counts[id_] for id_ in schemas) > 1000
