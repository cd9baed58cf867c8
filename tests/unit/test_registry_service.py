"""The order in which a change passes from decision to answer, and what an unanswered append leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import RetriableError
from sluice.stack import registry_changes as changes
from sluice.stack.registry_log import Batch
from sluice.stack.registry_memory import MemoryLog
from sluice.stack.registry_replies import Refused
from sluice.stack.registry_rules import Schema
from sluice.stack.registry_service import Registry
from sluice.stack.registry_store import Record, Store

TEXTS = [f'{{"type":"record","name":"R{n}","fields":[]}}' for n in range(3)]


class FlakyLog(MemoryLog):
    """Fails the next appends that carry a schema: `lost` before they are in the log, `kept` after."""

    def __init__(self, *plan: str) -> None:
        super().__init__()
        self.plan = list(plan)

    def append(self, records: tuple[Record, ...]) -> int:
        what = self.plan.pop(0) if self.plan and b"SCHEMA" in records[0][0] else "fine"
        offset = -1 if what == "lost" else super().append(records)
        if what != "fine":
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return offset


def run(log: MemoryLog, story: Callable[[Registry], Awaitable[Any]]) -> Any:
    async def told() -> Any:
        registry = Registry(log)
        try:
            await registry.start(5, lambda problem: None)
            return await story(registry)
        finally:
            registry.stop()

    return asyncio.run(told())


def register(text: str, subject: str = "s") -> Callable[[Store], changes.Change]:
    return lambda store: changes.register(store, subject, Schema(text))


@pytest.mark.parametrize("fate", ["lost", "kept"])
def test_an_append_of_unknown_outcome_may_be_asked_again(fate: str) -> None:
    log = FlakyLog("fine", fate)

    async def story(registry: Registry) -> tuple[Any, Any, Any]:
        first = await registry.change(register(TEXTS[0], "a"))
        with pytest.raises(Refused) as problem:
            await registry.change(register(TEXTS[1], "b"))
        assert problem.value.code == 50001
        return (
            first,
            await registry.change(register(TEXTS[2], "c")),
            await registry.change(register(TEXTS[1], "b")),
        )

    ids = run(log, story)
    assert len(set(ids)) == 3
    store = Store()
    for record in log.records:
        store.apply(*record)
    assert [v.version for v in store.all("b")] == [1]
    assert {s: store.all(s)[0].id for s in "acb"} == dict(zip("acb", ids, strict=True))


def test_changes_at_the_same_time_are_one_after_the_other() -> None:
    async def story(registry: Registry) -> list[Any]:
        return await asyncio.gather(
            *(registry.change(register(text, f"s{n}")) for n in range(5) for text in TEXTS[:1])
        )

    assert len(set(run(MemoryLog(), story))) == 1

    async def different(registry: Registry) -> list[Any]:
        return await asyncio.gather(*(registry.change(register(text, f"s{text}")) for text in TEXTS))

    assert len(set(run(MemoryLog(), different))) == 3


def test_an_answer_is_true_for_the_next_read() -> None:
    async def story(registry: Registry) -> None:
        schema_id = await registry.change(register(TEXTS[0]))
        assert registry.store.holders(int(str(schema_id)))[0].subject == "s"

    run(MemoryLog(), story)


def test_a_log_that_loses_its_end_ends_the_registry() -> None:
    class Shrinking(MemoryLog):
        def follow(self, take: Callable[[Batch], None]) -> None:
            self.mark()
            take(list(self.records))
            raise RetriableError("shorter than it was")

    async def told() -> list[str]:
        failures: list[str] = []
        registry = Registry(Shrinking())
        starting = asyncio.create_task(registry.start(5, lambda problem: failures.append(problem.message)))
        while not failures:
            await asyncio.sleep(0.01)
        starting.cancel()
        return failures

    assert asyncio.run(told()) == ["shorter than it was"]
