"""The trainer on the real broker: shared records in, forecasts and signed releases out, once each."""

from __future__ import annotations

import json
import threading

import pytest
from fastavro import schemaless_reader

from tests.integration.conftest import RunningStack
from tests.integration.kafka_help import group_offset, read, unique
from tests.integration.train_help import (
    START,
    STEP_MS,
    Shared,
    everything,
    forget_training,
    open_shared,
    open_training,
    share,
    trainer_process,
)
from trainers.manifest import avro, unseal
from trainers.signing import key_files, read_public
from trainers.train import Progress, train

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
@pytest.mark.timeout(600)
def test_a_killed_trainer_ends_where_an_undisturbed_one_does(stack: RunningStack, shared: Shared) -> None:
    """Final record, releases and forecasts are byte-identical after SIGKILLs at many places."""
    import time

    spec = open_training(stack, unique("task"), shared.contract.contract)
    caught_up(stack, spec)
    undisturbed = everything(stack, spec.task)
    forget_training(stack, spec)
    open_training(stack, spec.task, shared.contract.contract)

    kills = 0
    for wait in (0.0, 0.05, 0.15, 0.3, 0.5):
        process = trainer_process(stack, spec.task, "--batch-records", "24")
        deadline = time.monotonic() + 60
        before = group_offset(stack.admin, f"train.{spec.task}", shared.topic)
        while group_offset(stack.admin, f"train.{spec.task}", shared.topic) == before:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(wait)
        process.kill()
        process.communicate()
        kills += 1
    process = trainer_process(stack, spec.task, "--until-caught-up")
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    end = json.loads(out.splitlines()[-1])
    assert end["event"] == "end"
    assert 0 < end["events"] < SLOTS  # the killed ones did the rest
    assert kills == 5
    assert everything(stack, spec.task) == undisturbed
