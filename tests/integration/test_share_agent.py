"""The share worker as a process: what it keeps over restarts, what stops it, and what a handler's failure costs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

import streams.sharing
from schemas import dlq
from schemas.errors import KeyStoreError
from streams.agents import hop
from streams.agents.app import run
from streams.agents.share import ShareAgent
from streams.privacy.keystore import path_of
from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import read, unique
from tests.integration.share_help import DAY_MS, ROOT, START_MS, Opening, Worker, opening, working

CONTRACT = """
contract: {name}
version: 1.0.0
owner: did:web:agent.example
source: {{kind: csv, path: none.csv}}
event:
  key: site
  time: {{field: at, format: epoch_ms}}
  fields:
    site: {{type: string}}
    at: {{type: timestamp}}
    card: {{type: string}}
    amount: {{type: int}}
privacy:
  protects: person
  population: {name}
  epoch: {{length: day, from: 2016-01-01}}
  epsilon: 4
  contribution: {{max: 4, of: [at], held_by: ledger}}
  unit: [card]
  fields:
    site: public
    at: {{time: 1min}}
    card: drop
    amount: {{count: {{min: 0, max: 100, per_unit: 100}}}}
terms: {{purpose: [test], for: 1d}}
"""


@pytest.fixture
def opened(stack: RunningStack, tmp_path: Path) -> Opening:
    return opening(stack, tmp_path, CONTRACT.format(name=unique("agent.share")))


def event(opened: Opening, card: int, slot: int) -> tuple[bytes, bytes]:
    record = {"site": "s-1", "at": START_MS + slot * 60_000, "card": f"c-{card}", "amount": 7}
    return b"s-1", opened.encode(record)


def clock(opened: Opening) -> tuple[None, bytes]:
    return None, opened.clock(START_MS + DAY_MS // 2)


@pytest.mark.timeout(120)
def test_ledger_clock_and_counts_outlive_the_worker(opened: Opening) -> None:
    opened.send([event(opened, 0, 0), clock(opened), *(event(opened, card, 1) for card in range(50))])
    with working(opened) as worker:
        worker.wait([52])
        first = worker.stop()
    assert first["denied"] == {"no-clock": 1}
    assert first["shared"] == 50
    opened.send([*(event(opened, card, 1) for card in range(60))])  # 50 again, and 10 new units
    with working(opened) as worker:
        worker.wait([113])  # a commit marker stands between
        second = worker.stop()
    assert second["shared"] == 60
    assert second["denied"] == {"no-clock": 1, "slot-used": 50}
    assert second["events"] == 111
    assert len(opened.out(opened.contract.topics.shared)) == 60
    assert not list(ROOT.glob("share.*")), "the worker left a folder where its user stood"


@pytest.mark.timeout(120)
def test_another_key_than_the_ledgers_stops_the_worker_with_the_remedy(opened: Opening) -> None:
    opened.send([clock(opened), event(opened, 0, 0)])
    with working(opened) as worker:
        worker.wait([2])
        worker.stop()
    key = path_of(opened.stack.home, opened.contract.privacy.population)
    body = json.loads(key.read_text())
    body["root"] = "00" * 32
    key.write_text(json.dumps(body))
    worker = Worker(opened)
    assert worker.process.wait(60) == KeyStoreError.exit_code
    worker.kill()
    assert "Restore $SLUICE_HOME/keys" in worker.log.read_text()


@pytest.mark.timeout(120)
def test_one_slot_has_one_worker(opened: Opening) -> None:
    opened.send([clock(opened), event(opened, 0, 0)])
    with working(opened, "--slot", "3") as worker:
        worker.wait([2])
        other = Worker(opened, "--slot", "3")
        assert other.process.wait(60) == 3
        other.kill()
        worker.stop()
    assert "slot 3" in other.log.read_text()


@pytest.mark.timeout(120)
def test_the_status_page_knows_the_worker_and_it_stays_small(opened: Opening) -> None:
    opened.send([clock(opened), event(opened, 0, 0)])
    began = time.monotonic()
    with working(opened) as worker:
        worker.wait([2])
        assert time.monotonic() - began < 30
        assert list((opened.stack.home / "run").glob("share-*.json"))
        assert worker.peak_mib() < 220
        worker.stop()


@pytest.mark.timeout(120)
def test_a_record_that_breaks_the_agent_ends_in_the_dead_letters_and_the_rest_is_shared(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler itself fails here, which no record should ever bring about."""
    records = [clock(opened), *(event(opened, card, 1) for card in range(300))]
    opened.send(records)
    real = streams.sharing.share

    def breaks(batch: streams.sharing.RawBatch, *more: object) -> object:
        if "c-217" in batch.columns.column("card").to_pylist():
            raise ZeroDivisionError("on purpose")
        return real(batch, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(hop, "share", breaks)
    stack = opened.stack

    async def until_done() -> None:
        while opened.committed() < len(records):
            await asyncio.sleep(0.2)

    agent = ShareAgent(opened.contract, stack.connection("share"), stack.home, f"{opened.group}.0", START_MS)
    run(agent.app, until_done)
    assert agent.counts.shared == 299
    assert agent.counts.rejected == {"handler-failed": 1}
    (letter,) = read(stack.admin, opened.contract.topics.dlq)
    assert letter.value() == records[218][1]
    assert dlq.origin(letter.headers())["exception"] == "handler-failed"
    assert len(opened.out(opened.contract.topics.shared)) == 299
