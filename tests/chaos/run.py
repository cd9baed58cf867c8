"""One run: load, faults, drain, audit; the report is one dictionary."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from schemas.contract import parse
from sluice.stack.provision import open_contract
from streams.privacy.keys import KeyChain
from tests.chaos import events
from tests.chaos.audit import Audit
from tests.chaos.faults import HOLD_SECONDS, KINDS, Fault, Faults, plan
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.scene import DRAIN_SECONDS, Ground, Scene
from tests.integration.kafka_help import unique

PARTITIONS = 4
TORN = re.compile(rb"([^\s\"]+\[\d+\]) (?:is torn|holds a transaction without an end)")


@dataclass(frozen=True, slots=True)
class Options:
    """`faults`: kinds, of which a plan is made, or None to do exactly `script`. `recycling` off shows that the EndTxn
    fault bites."""

    seed: int = 1
    seconds: float = 300.0
    rate: float = 5000.0
    faults: Sequence[str] = KINDS
    script: Sequence[Fault] = ()
    recycling: bool = True


def run(
    options: Options, ground: Ground, folder: Path, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Ends early after a fault that was not recovered from. Raises TimeoutError where nothing flows at the start."""
    now_ms = time.time_ns() // 1_000_000
    count = int(options.rate * (1.3 * options.seconds + 90))  # faults may end late, the drain takes seconds
    start_ms = (now_ms // events.DAY_MS - 1) * events.DAY_MS
    script = events.Script(options.seed, events.units_for(count), start_ms, PARTITIONS)
    file = folder / "contract.yaml"
    text = events.CONTRACT.format(name=unique("chaos"), cap=events.CAP, partitions=PARTITIONS)
    file.write_text(text)
    contract = parse(text, folder)
    admin = ground.connection("admin")
    opened = open_contract(contract, admin)

    load = Load(script, folder / "load.csv", options.rate)
    scene = Scene(ground, contract, file, load, recycling=options.recycling)
    faults = Faults(scene, say)
    try:
        scene.begin()
        say("every partition flows")
        began = time.monotonic()
        planned = iter(options.script) if options.script else plan(options.seed, options.faults)
        for fault in takewhile(lambda _: time.monotonic() - began < options.seconds, planned):
            faults.do(fault)
            if faults.stuck:
                break
        if any(name.startswith("endtxn") for name in faults.seconds):
            scene.endure(HOLD_SECONDS + 6)
        lasted, rate = time.monotonic() - began, load.count / load.lasted
        drained = scene.drain(20 if faults.stuck else DRAIN_SECONDS)
        poison_left = scene.poison.close()
    finally:
        scene.close()
    say(f"{load.count} events written; drained: {drained}")

    oracle = Oracle(events.CAP, PARTITIONS)
    for event in script.events(load.count):
        oracle.sent(event)
    audit = Audit(contract, admin, KeyChain.open(ground.home, contract, now_ms), oracle, script.units)
    verdict, ledger_errors = audit.report(opened.schema_ids["sluice.clock"])
    for slot in scene.slots:
        if slot.log.exists():
            audit.torn.update(each.decode() for each in TORN.findall(slot.log.read_bytes()))
    late: Counter[str] = sum((slot.proxy.ended for slot in scene.slots), Counter())
    return {
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "reordered": verdict.reordered,
        "second_payloads": verdict.second_payloads,
        "unexpected": verdict.unexpected,
        "ledger_errors": ledger_errors,
        "torn": len(audit.torn),
        "torn_partitions": sorted(audit.torn),
        "recovery_p95_s": p95(faults.seconds, "kill:restart"),
        "takeover_p95_s": p95(faults.seconds, "kill:takeover", "zombie"),
        "broker_recovery_p95_s": p95(faults.seconds, "broker"),
        "producer_recovery_p95_s": p95(faults.seconds, "producer"),
        "network_recovery_p95_s": p95(
            faults.seconds, *(each for each in faults.seconds if each.startswith("network"))
        ),
        "recovery_max_s": {name: round(max(took), 2) for name, took in sorted(faults.seconds.items())},
        "faults": {name: len(took) for name, took in sorted(faults.seconds.items())},
        "faults_in_all": sum(map(len, faults.seconds.values())),
        "not_recovered": faults.stuck,
        "drained": drained,
        "late_endtxn": dict(sorted(late.items())),
        "exits": {slot.name: {str(code): n for code, n in slot.ends.items()} for slot in scene.slots},
        "events": load.count,
        "shared": sum(map(len, oracle.shared.values())),
        "dead_letters": sum(map(len, oracle.letters.values())),
        "poison_unsure": poison_left,
        "rate": round(rate),
        "seed": options.seed,
        "seconds": round(lasted, 1),
        "recycling": options.recycling,
    }


def p95(seconds: dict[str, list[float]], *names: str) -> float | None:
    """Nearest rank; None where there was no such fault."""
    found = sorted(each for name in names for each in seconds.get(name, ()))
    return round(found[math.ceil(0.95 * len(found)) - 1], 2) if found else None
