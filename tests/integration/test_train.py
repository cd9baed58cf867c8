"""The trainer on the real broker: shared records in, forecasts and signed releases out, once each."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from fastavro import schemaless_reader

from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import group_offset, read, unique
from tests.integration.share_help import opening, working
from tests.integration.train_help import (
    CONTRACT,
    START,
    STEP_MS,
    Shared,
    counts,
    everything,
    forget_training,
    open_shared,
    open_training,
    share,
    trainer_process,
)
from trainers.manifest import avro, unseal
from trainers.signing import key_files, read_public
from trainers.train import train
from trainers.worker import Progress

DAYS = 2
SLOTS = DAYS * 288


@pytest.fixture(scope="module")
def shared(stack: RunningStack) -> Shared:
    made = open_shared(stack, unique("traffic"))
    share(stack.connection("admin"), made, 0, SLOTS, transactions=40)
    return made


def caught_up(stack: RunningStack, spec: object, **more: object) -> Progress:
    return train(
        spec,  # type: ignore[arg-type]
        stack.connection("trainer"),
        home=stack.home,
        stopping=threading.Event(),
        until_caught_up=True,
        **more,  # type: ignore[arg-type]
    )


def test_it_learns_forecasts_and_releases(stack: RunningStack, shared: Shared) -> None:
    import io

    spec = open_training(stack, unique("task"), shared.contract.contract)
    end = caught_up(stack, spec)
    assert (end.events, end.unread, end.late) == (SLOTS, 0, 0)
    assert end.version == end.released == 3
    public = read_public(key_files(stack.home, spec.task)[1])
    found = everything(stack, spec.task)
    manifests = [unseal(value, public) for _, value, _ in found["manifests"]]
    assert [manifest.version for manifest in manifests] == [1, 2, 3]
    assert [manifest.as_of_ms for manifest in manifests] == [
        START + (144 * n - 1) * STEP_MS for n in (1, 2, 3)
    ]
    assert [manifest.parent for manifest in manifests] == [None, *(m.release for m in manifests[:2])]
    assert len({manifest.files for manifest in manifests}) == 3
    offsets = [next(iter(manifest.sources.values())) for manifest in manifests]
    assert offsets == sorted(set(offsets))
    assert {source[0] for manifest in manifests for source in manifest.sources} != {""}
    assert {terms.terms_digest for m in manifests for terms in m.contracts} == {shared.contract.terms_digest}
    assert len(found["forecasts"]) == SLOTS
    first: dict[str, object] = schemaless_reader(  # type: ignore[assignment]
        io.BytesIO(found["forecasts"][0][1][5:]), avro("model_forecast"), None
    )
    assert first["key"] == "d-1"
    high = read(stack.admin, shared.topic)[-1].offset()
    assert group_offset(stack.admin, f"train.{spec.task}", shared.topic) >= high

    again = caught_up(stack, spec)
    assert (again.events, again.released) == (0, 0)
    share(stack.connection("admin"), shared, SLOTS, SLOTS + 10)
    more = caught_up(stack, spec)
    assert (more.events, more.version) == (10, 4)  # the border of two days was crossed
    assert len(everything(stack, spec.task)["forecasts"]) == SLOTS + 10


def test_repeats_and_events_from_the_future_change_nothing(stack: RunningStack) -> None:
    """The future is skipped and counted; a repeat is no news. Neither is forecast from, nor stops a release."""
    made, admin = open_shared(stack, unique("traffic")), stack.admin
    year_2092 = 8_000_000
    share(admin, made, 0, 200)
    share(admin, made, year_2092, year_2092 + 1)
    share(admin, made, 190, 200)
    share(admin, made, 200, SLOTS)
    spec = open_training(stack, unique("task"), made.contract.contract)
    end = caught_up(stack, spec)
    assert (end.unread, end.late, end.version) == (1, 10, 3)
    assert end.as_of_ms == START + (SLOTS - 1) * STEP_MS
    assert len(everything(stack, spec.task)["forecasts"]) == SLOTS


def test_a_planted_worse_candidate_is_refused(stack: RunningStack, shared: Shared) -> None:
    from trainers.release import damaged

    spec = open_training(stack, unique("task"), shared.contract.contract)
    seen: list[Progress] = []
    end = caught_up(
        stack,
        spec,
        progress=seen.append,
        tamper=lambda number, graph: damaged(graph) if number == 2 else graph,
    )
    assert end.refused == 1
    candidates = [candidate for progress in seen for candidate in progress.candidates]
    assert [candidate.verdict.publish for candidate in candidates][:3] == [True, False, True]
    assert any("artefact" in reason for reason in candidates[1].verdict.reasons if "refused" in reason)
    assert candidates[2].manifest is not None
    assert candidates[2].manifest.version == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_that_comes_out_depends_on_the_raw_side(stack: RunningStack, tmp_path: Path) -> None:
    """With raw, dead-letter, ledger and source topic deleted, a trainer that starts afresh makes the same bytes."""
    work = opening(stack, tmp_path, CONTRACT.format(name=unique("traffic")))
    public, days = work.contract.topics, 3
    times = START + np.arange(days * 288) * STEP_MS
    values = counts(np.arange(len(times)), seed=7)
    rows = [
        (b"d-1", work.encode({"detector": "d-1", "interval_start": time, "vehicles": value}))
        for time, value in zip(times.tolist(), values.tolist(), strict=True)
    ]
    raw = [(None, work.clock(START)), *rows[:288], (None, work.clock(int(times[-1]))), *rows[288:]]
    work.send(raw)
    with working(work) as worker:
        worker.wait([len(raw)])
        assert worker.stop()["shared"] == len(rows)

    spec = open_training(stack, unique("task"), work.contract.contract)
    first = caught_up(stack, spec)
    assert first.released >= 4
    with_raw = everything(stack, spec.task)
    forget_training(stack, spec)

    client = AdminClient(stack.admin.settings())
    gone = {public.raw, public.dlq, public.ledger, public.source}
    for deleted in client.delete_topics(sorted(gone)).values():
        deleted.result(30)
    deadline = time.monotonic() + 30
    while gone & set(client.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    open_training(stack, spec.task, work.contract.contract)
    process = trainer_process(stack, spec.task, "--until-caught-up", "--batch-records", "100")
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert json.loads(out.splitlines()[-1])["events"] == len(rows)
    without_raw = everything(stack, spec.task)
    for kind in with_raw:
        assert without_raw[kind] == with_raw[kind], kind
    assert not gone & set(client.list_topics(timeout=10).topics)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_trainer_ends_where_an_undisturbed_one_does(stack: RunningStack, shared: Shared) -> None:
    """Final record, releases and forecasts are byte-identical after SIGKILLs at many places."""
    spec = open_training(stack, unique("task"), shared.contract.contract)
    caught_up(stack, spec)
    undisturbed = everything(stack, spec.task)
    forget_training(stack, spec)
    open_training(stack, spec.task, shared.contract.contract)

    high, kills = read(stack.admin, shared.topic)[-1].offset(), 0
    for wait in (0.0, 0.02, 0.05, 0.1, 0.15):
        process = trainer_process(stack, spec.task, "--batch-records", "12")
        deadline = time.monotonic() + 60
        before = group_offset(stack.admin, f"train.{spec.task}", shared.topic)
        while high > before == group_offset(stack.admin, f"train.{spec.task}", shared.topic):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(wait)
        process.kill()
        process.communicate()
        kills += group_offset(stack.admin, f"train.{spec.task}", shared.topic) < high  # in the middle
    process = trainer_process(stack, spec.task, "--until-caught-up")
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    end = json.loads(out.splitlines()[-1])
    assert end["event"] == "end"
    assert end["events"] < SLOTS  # the killed ones did the rest
    assert kills >= 3
    assert everything(stack, spec.task) == undisturbed
