"""One run: load, faults, drain, audit; the report is one dictionary."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from schemas.contract import Contract, parse
from sluice.stack.provision import open_contract, open_task
from streams.privacy.keys import KeyChain
from tests.chaos import events
from tests.chaos.audit import Audit
from tests.chaos.audit_trained import Heights, audit_trained
from tests.chaos.events import PARTITIONS
from tests.chaos.faults import ENDS_SECONDS, HOLD_SECONDS, Faults
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.plans import KINDS, Fault, plan
from tests.chaos.scene import DRAIN_SECONDS, Ground, Scene
from tests.chaos.trained import STEP_MINUTES, TASK, Lessons, release_minutes
from tests.integration.kafka_help import unique
from trainers.signing import read_public
from trainers.spec import load as load_task
from trainers.train import schemas

# What must be 0, or nobody may believe the rest.
CLEAN = (
    *("lost", "duplicated", "reordered", "second_payloads", "unexpected", "ledger_errors", "torn"),
    *(f"releases_{name}" for name in ("lost", "duplicated", "reordered", "second_payloads", "bad")),
    *(f"forecasts_{name}" for name in ("lost", "duplicated", "reordered", "unexpected")),
    "trainer_errors",
)
TORN = re.compile(rb"([^\s\"]+\[\d+\]) (?:is torn|holds a transaction without an end)")


@dataclass(frozen=True, slots=True)
class Options:
    """`faults`: kinds, of which a plan is made, or None to do exactly `script`. `seconds`: of faults; a script that
    lasts longer is cut. `recycling` off shows that the EndTxn fault bites."""

    seed: int = 1
    seconds: float = 300.0
    rate: float = 5000.0
    faults: Sequence[str] = KINDS
    script: Sequence[Fault] = ()
    recycling: bool = True
    trainer: bool = True


def run(
    options: Options, ground: Ground, folder: Path, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Ends early after a fault that was not recovered from. Raises TimeoutError where nothing flows at the start."""
    now_ms = time.time_ns() // 1_000_000
    count = int(options.rate * (1.3 * options.seconds + 90))  # faults may end late, the drain takes seconds
    start_ms = (now_ms // events.DAY_MS - events.DAYS + 1) * events.DAY_MS
    script = events.Script(options.seed, events.units_for(count), start_ms)
    file = folder / "contract.yaml"
    text = events.CONTRACT.format(name=unique("chaos"), cap=events.CAP, partitions=PARTITIONS)
    file.write_text(text)
    contract = parse(text, folder)
    admin = ground.connection("admin")
    opened = open_contract(contract, admin)
    every = release_minutes(script.units / events.STEP, options.rate)
    task = _task(ground, contract, folder, every) if options.trainer else None

    load = Load(script, folder / "load.csv", options.rate)
    scene = Scene(ground, contract, file, load, recycling=options.recycling, task=task)
    faults = Faults(scene, say)
    try:
        scene.begin()
        say("every partition flows")
        began = time.monotonic()
        _faults(options, faults, began)
        lasted, rate = time.monotonic() - began, load.count / load.lasted
        load_average = [round(each, 2) for each in os.getloadavg()]
        drained = scene.drain(20 if faults.stuck else DRAIN_SECONDS)
        poison_left = scene.poison.close()
    finally:
        scene.close()
    say(f"{load.count} events written; drained: {drained}")

    oracle = Oracle(events.CAP, PARTITIONS)
    for event in script.events(load.count):
        oracle.sent(event)
    audit = Audit(contract, admin, KeyChain.open(ground.home, contract, now_ms), oracle, script.units)
    lessons, heights = Lessons(every), Heights()

    def shared(partition: int, offset: int, number: int) -> None:
        event = script.event(number)
        lessons.shared(event)
        heights.add(partition, offset, event.slot // STEP_MINUTES)

    audit.shared = shared
    verdict, ledger_errors = audit.report(opened.schema_ids["sluice.clock"])
    trained: dict[str, Any] = {}
    if task is not None:
        public = read_public(ground.home / "signers" / f"{task.stem}.pub")
        trained = audit_trained(
            admin, task.stem, contract.topics.shared, public, lessons, heights, audit.torn
        )
    for slot in scene.slots:
        if slot.log.exists():
            audit.torn.update(each.decode() for each in TORN.findall(slot.log.read_bytes()))
    late: Counter[str] = sum((slot.proxy.ended for slot in scene.slots), Counter())
    took = faults.seconds
    return {
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "reordered": verdict.reordered,
        "second_payloads": verdict.second_payloads,
        "unexpected": verdict.unexpected,
        "ledger_errors": ledger_errors,
        "torn": len(audit.torn),
        "torn_partitions": sorted(audit.torn),
        **trained,
        "recovery_p95_s": p95(took, "kill:restart"),
        "takeover_p95_s": p95(took, "kill:takeover"),
        "zombie_p95_s": p95(took, "zombie"),
        "broker_recovery_p95_s": p95(took, "broker"),
        "producer_recovery_p95_s": p95(took, "producer"),
        "registry_recovery_p95_s": p95(took, "registry"),
        "trainer_recovery_p95_s": p95(took, "trainer"),
        "trainer_after_broker_p95_s": p95(faults.learned, "broker"),
        "network_recovery_p95_s": p95(took, *(each for each in took if each.startswith("network"))),
        "endtxn_recovery_p95_s": p95(took, *(each for each in took if each.startswith("endtxn"))),
        "recovery_max_s": {name: round(max(each), 2) for name, each in sorted(took.items())},
        "faults": {name: len(each) for name, each in sorted(took.items())},
        "faults_in_all": sum(map(len, took.values())),
        "killed": dict(sorted(faults.killed.items())),
        "not_recovered": faults.stuck,
        "drained": drained,
        "endtxn_trials": sum(late.values()),
        "late_endtxn": dict(sorted(late.items())),
        "exits": {slot.name: {str(code): n for code, n in slot.ends.items()} for slot in scene.slots},
        "events": load.count,
        "shared": sum(map(len, oracle.shared.values())),
        "dead_letters": sum(map(len, oracle.letters.values())),
        "poison_unsure": poison_left,
        "rate": round(rate),
        "load_average": load_average,
        "seed": options.seed,
        "seconds": round(lasted, 1),
        "recycling": options.recycling,
    }


def _faults(options: Options, faults: Faults, began: float) -> None:
    """One after the other, until the time is over or one was not recovered from. A script's broker that may not end yet
    gives way to what follows."""
    scene, waiting = faults.scene, deque[Fault]()

    def over() -> bool:
        return time.monotonic() - began >= options.seconds or bool(faults.stuck)

    for fault in options.script or plan(options.seed, options.faults):
        while waiting and faults.may(waiting[0]) and not over():
            faults.do(waiting.popleft())
        if over():
            break
        if faults.may(fault):
            faults.do(fault)
        elif options.script:
            waiting.append(fault)
    for fault in waiting:
        scene.endure_until(partial(faults.may, fault), ENDS_SECONDS)
        if not over():
            faults.do(fault)
    if any(name.startswith("endtxn") for name in faults.seconds):
        scene.endure(HOLD_SECONDS + 6)


def _task(ground: Ground, contract: Contract, folder: Path, every: int) -> Path:
    """A task file for a trainer on the shared topic, opened."""
    name = unique("chaos-task")
    file = folder / f"{name}.yaml"
    file.write_text(TASK.format(name=name, contract=contract.contract, every=every))
    open_task(name, [contract], ground.connection("admin"), schemas(load_task(file)))
    return file


def p95(seconds: dict[str, list[float]], *names: str) -> float | None:
    """Nearest rank; None where there was no such fault."""
    found = sorted(each for name in names for each in seconds.get(name, ()))
    return round(found[math.ceil(0.95 * len(found)) - 1], 2) if found else None
