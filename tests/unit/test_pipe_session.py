"""What the pipe does with records that make their handler fail, and with a fault that is not theirs."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

from schemas.errors import FatalError, RetriableError
from streams.kafka.clients import Connection
from streams.kafka.fit import Fit
from streams.kafka.records import NOTHING, Records, Source
from streams.kafka.session import DOOMED_IN_A_ROW, SIZE_BEHIND, Session
from streams.kafka.transaction import TransactionalPipe
from streams.kafka.writer import Work, Writer

SOURCE = Source("in", 0)


class _Message(NamedTuple):
    at: int

    def key(self) -> None: ...
    def value(self) -> None: ...
    def headers(self) -> None: ...
    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


def records(first: int, last: int, doomed: frozenset[int] = frozenset(), epoch: int = 0) -> Records:
    found = [_Message(offset) for offset in range(first, last)]
    return Records(SOURCE, found, start=first, next=last, doomed=doomed, epoch=epoch)


def test_behind_a_doomed_record_the_rest_does_not_come_one_by_one() -> None:
    session = Session()
    session.suspect(records(0, 1000))
    assert session.suspects[SOURCE].size == 500
    session.suspects[SOURCE].size = 1
    session.suspect(records(7, 8))
    assert session.doomed == {SOURCE: {7}}
    assert (session.suspects[SOURCE].end, session.suspects[SOURCE].size) == (1000, SIZE_BEHIND)
    assert session.error is None


def test_a_doomed_record_that_fails_again_ends_the_worker() -> None:
    session = Session()
    session.suspect(records(7, 8, frozenset({7})))
    assert isinstance(session.error, FatalError)
    assert session.stopping.is_set()


def test_a_fault_of_every_record_does_not_empty_the_topic_into_dead_letters() -> None:
    session = Session()
    for offset in range(1000):
        session.suspect(records(offset, offset + 1))
        if session.stopping.is_set():
            break
        session.moved(records(offset, offset + 1, frozenset({offset})))  # its dead letter: proves nothing
    assert offset == DOOMED_IN_A_ROW
    assert isinstance(session.error, FatalError)


def test_many_bad_records_among_good_ones_stop_nothing() -> None:
    session = Session()
    for offset in range(0, 1000, 2):
        session.suspect(records(offset, offset + 1))
        session.moved(records(offset, offset + 2, frozenset({offset})))
    assert session.error is None


class _Settings:
    """Stands for a Connection that nobody connects with."""

    def settings(self, **more: Any) -> dict[str, Any]:
        return dict(more)


def pipe() -> TransactionalPipe:
    nowhere = cast(Connection, _Settings())
    return TransactionalPipe(nowhere, group="g", topics=["in"], transactional_id="t.0")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_no_record_is_guilty_of_the_machine(error: Exception) -> None:
    worker = pipe()
    worker.fail(records(0, 1), error)
    assert isinstance(worker.session.error, RetriableError)
    assert not worker.session.doomed


@pytest.mark.parametrize("error", [TimeoutError(), MemoryError(), ValueError()])
def test_what_fewer_records_may_heal_is_tried_with_fewer(error: Exception) -> None:
    worker = pipe()
    worker.fail(records(0, 10), error)
    assert worker.session.error is None
    assert worker.session.suspects[SOURCE].size == 5


def test_work_behind_the_end_of_the_writer_is_answered() -> None:
    """Else whoever waits for its future waits for ever: the agent computes while the writer fails."""
    worker = pipe()
    writer: Writer = worker._writer
    writer._producer = _Dead()  # type: ignore[assignment]
    worker.session.fail(FatalError("on purpose"))
    writer.run()
    assert writer.put(Work(((records(0, 1), NOTHING),))).result(1) is False


class _Dead:
    def recycle(self) -> None: ...
    def close(self) -> None: ...
    def cluster(self) -> str:
        return "c"


class _Odd(_Message):
    def headers(self) -> None:
        if self.at:
            raise AssertionError("a second call crashes the process")
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_a_header_name_that_is_not_utf8_costs_its_record_nothing_but_the_headers() -> None:
    found = Records(SOURCE, [_Odd(0)], start=0, next=1)
    assert found.headers(0) == []
    found.messages = [_Odd(1)]
    assert found.headers(0) == []


def test_transactions_shrink_until_the_broker_takes_them_and_grow_again() -> None:
    """Under a quota the same 14,000 records would time out for ever."""
    fit = Fit(50_000)

    def took(rows: int, part: float, done: bool) -> int | None:
        fit.took(rows, part, done)
        return fit.most

    assert took(14_000, 0.4, False) is None  # it did not fail for its size
    assert took(14_000, 1.0, False) == 3_500
    assert took(3_500, 1.0, False) == 875
    assert took(875, 0.5, True) == 875  # slow
    assert took(10, 0.01, True) == 875  # far from the bound: it says nothing
    sizes = [875]
    while (most := took(sizes[-1], 0.1, True)) is not None:
        sizes.append(most)
    assert sizes == [875, 1750, 3500, 7000, 14_000, 28_000]
    for _ in range(20):
        most = took(fit.most or 14_000, 1.0, False)
    assert most == 1


def test_work_that_does_not_follow_what_is_committed_is_dropped_and_all_is_read_again() -> None:
    worker = pipe()
    worker.session.positions[SOURCE] = 5
    asked: list[str] = []
    worker._writer.reset = asked.append
    assert worker._writer._current([Work(((records(6, 8), NOTHING),))]) == []
    assert len(asked) == 1
    follows = [Work(((records(5, 8), NOTHING),)), Work(((records(8, 9), NOTHING),))]
    assert worker._writer._current(follows) == follows
