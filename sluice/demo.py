"""The whole way of an event on one machine: the same commands a user runs, as processes, and a judge beside them.

    stack (broker, registry) -> publish | share | train (child processes) -> subscribe (here)

Everything that is reported is read back from the topics or computed from the source file; only the number of
denied events is the agent's own, and it must explain exactly what is missing.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from schemas.contract import load as load_contract
from schemas.errors import FatalError, RetriableError
from sluice import evaluate, plot, settings
from sluice.reconcile import AvroReader, Place, account
from sluice.stack import acls, children, classes, provision
from sluice.stack.home import Home
from sluice.stack.supervisor import AlreadyRunningError, Stack, ports_of, start_detached
from sluice.watch import Watch
from streams.kafka.clients import Connection
from trainers import spec as tasks
from trainers.serving import Model
from trainers.spec import Public
from trainers.subscriber import Subscription, Update, subscribe

CONTRACT = "traffic.detector-counts"
TASK = "traffic"
TEST_FROM = datetime(2016, 3, 4, tzinfo=ZoneInfo("America/Los_Angeles"))  # the data set's test weeks
SEED = 0
WORSE = 8  # this candidate is damaged on purpose: the gate must refuse it
SHOWN_DAYS = 2
PATIENCE_SECONDS = 300
COMMANDS = {
    "publish": ["publish", CONTRACT, "--no-open", "--json"],
    "share": ["share", CONTRACT, "--no-open", "--json"],
    "train": ["train", TASK, "--no-open", "--json", "--plant-worse", str(WORSE)],
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Say = Callable[[str, float, float], None]  # stage, done, total
Connect = Callable[[str], Connection]


@dataclass
class Result:
    """What `--json` ends with. `warm_s`, `cold_s`: from the start of the command to the first shared record,
    with the broker's files in the cache and without; None where this run did not measure it.
    """

    traffic: dict[str, Any] = field(default_factory=dict)
    cold_s: float | None = None
    warm_s: float | None = None
    total_s: float = 0.0
    plot: str = ""

    def json(self) -> str:
        return json.dumps(asdict(self))


class Demo:
    """One run. `home` holds the stack, `output` gets the plot, `say(stage, done, total)` shows progress, `started`
    is when the command began (seconds since 1970).
    """

    def __init__(self, home: Path, output: Path, say: Say, started: float, keep: bool = False) -> None:
        self.home, self.output, self.say, self.started, self.keep = Home(home), output, say, started, keep
        self.contract = load_contract(CONTRACT)
        self.spec = tasks.load(Path(tasks.__file__).parent / "tasks" / f"{TASK}.yaml")
        self.first_slot = int(TEST_FROM.timestamp() * 1000) // self.spec.step_ms
        self.topics = acls.ModelTopics.of(TASK)
        self.models: list[Model] = []  # every release that the subscriber applied
        self.roles: dict[str, subprocess.Popen[bytes]] = {}
        self.result = Result()

    def run(self) -> Result:
        """Raises what the parts raise; nothing of ours runs afterwards but what `keep` asked for."""
        cold = classes.is_cold()
        with ExitStack() as cleanup:
            connect = cleanup.enter_context(self._stack())
            provision.open_contract(self.contract, connect("admin"))
            cleanup.callback(self._end_roles)
            self._start("publish", "share")
            self._open_task(connect("admin"))  # while those two load
            watch = Watch(connect("admin"))
            cleanup.callback(watch.close)
            watch.follow(self.contract.topics.shared, self.topics.forecasts, self.topics.manifests)
            subscription = cleanup.enter_context(self._subscribe(connect("subscriber")))
            self._until_first_shared(watch, cold)
            truth = evaluate.truth_of(self.contract, self.spec.target)
            self._start("train")
            # A process of its own, so that torch does not stay in this one.
            pool = cleanup.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            clean = pool.submit(evaluate.without_noise, *self._clean_inputs(truth))
            self._until_learned(watch, len(truth))
            self._until_applied(watch, subscription)
            self._end_roles()
            self._report(watch, connect("admin"), truth, clean)
        self.result.total_s = round(time.time() - self.started, 1)
        return self.result

    @contextmanager
    def _stack(self) -> Iterator[Connect]:
        def say(what: str, done: int, total: int) -> None:
            self.say(f"stack: {what}", done, total)

        self.say("stack", 0, 1)
        threading.Thread(target=import_module, args=("trainers.train",), daemon=True).start()  # needed soon
        if self.keep:
            with suppress(AlreadyRunningError):
                start_detached(self.home, ports_of(self.home), say)
            yield settings.load(home=self.home.path).connection
            return
        stack = Stack(self.home)
        stack.start(say)
        try:
            yield stack.connection
        finally:
            stack.stop()

    def _open_task(self, admin: Connection) -> None:
        """What `sluice train` would do first; the subscriber and the judge look at its topics from the start."""
        from trainers.train import schemas

        provision.open_task(TASK, [self.contract], admin, schemas(self.spec))
        self.say("stack", 1, 1)

    def _start(self, *roles: str) -> None:
        for role in roles:
            child = children.leashed(role, _sluice(*COMMANDS[role]), self._log(role))
            self.roles[role] = child.spawn({"SLUICE_HOME": str(self.home.path)})

    def _subscribe(self, connection: Connection) -> Subscription:
        def updated(update: Update) -> None:
            if update.applied:
                self.models.append(subscription.model)

        subscription = subscribe(
            TASK, connection, home=self.home.path, timeout_seconds=PATIENCE_SECONDS, on_update=updated
        )
        return subscription

    def _until_first_shared(self, watch: Watch, cold: bool) -> None:
        shared = watch.records[self.contract.topics.shared]
        self._wait(watch, "first shared record", lambda: (len(shared[:1]), 1))
        seconds = round(time.time() - self.started, 1)
        if cold:
            self.result.cold_s = seconds
        else:
            self.result.warm_s = seconds

    def _until_learned(self, watch: Watch, events: int) -> None:
        shared, forecasts = watch.records[self.contract.topics.shared], watch.records[self.topics.forecasts]
        self._wait(watch, "published", lambda: (int(self.roles["publish"].poll() is not None), 1))
        self._wait(watch, "shared", lambda: (len(shared), events))
        self._wait(watch, "learned", lambda: (len(forecasts), len(shared)))

    def _until_applied(self, watch: Watch, subscription: Subscription) -> None:
        """Until the subscriber has decided on every release that is in the topic."""
        released = watch.records[self.topics.manifests]
        manifests = [key for key, value in released if value]
        self._wait(watch, "applied", lambda: (len(subscription.history), len(manifests)))

    def _wait(self, watch: Watch, stage: str, reached: Callable[[], tuple[int, int]]) -> None:
        """Poll until done >= total; gives up when a role has died or nothing moves for long."""
        last, moved = -1, time.monotonic()
        while True:
            watch.poll(0.05)
            done, total = reached()
            self.say(stage, done, total)
            if done >= total:
                return
            if done != last:
                last, moved = done, time.monotonic()
            for role, process in self.roles.items():
                if process.poll():
                    raise FatalError(f"`sluice {role}` ended with {process.returncode}.", self._why(role))
            if time.monotonic() - moved > PATIENCE_SECONDS:
                raise RetriableError(f"{stage}: nothing moved for {PATIENCE_SECONDS} s.", self._why("share"))

    def _end_roles(self) -> None:
        for process in self.roles.values():
            if process.poll() is None:
                process.terminate()
        for process in self.roles.values():
            children.end(process, 20)

    def _report(
        self, watch: Watch, admin: Connection, truth: evaluate.Truth, clean: Future[evaluate.Score]
    ) -> None:
        self.say("scored", 0, 1)
        read = AvroReader(admin)
        issued = [self._issued(*read(value)) for _, value in watch.records[self.topics.forecasts]]
        shared = self._shared(read, watch)
        said = [json.loads(line) for line in self._log("train").read_text().splitlines() if line[:1] == "{"]
        counted = account(self.contract, admin, self._denied())
        score = evaluate.score(issued, truth, tasks.EXPERTS, self.first_slot)
        frozen = [m for m in self.models if int(m.manifest.as_of_ms) // self.spec.step_ms < self.first_slot]
        still = evaluate.score_frozen(frozen[-1], shared, truth, self.spec.context, self.first_slot)
        self.result.traffic = {
            **{name: value for name, value in asdict(counted).items() if name != "raw"},
            "releases": sum(1 for line in said if line["event"] == "release"),
            "applied": len(self.models),
            "refused_by_gate": [line["candidate"] for line in said if line["event"] == "refused"],
            "planted_worse": WORSE,
            "mae": _figure(score.mae),
            "mae_frozen": _figure(still.mae),
            "mae_without_noise": _figure(clean.result(PATIENCE_SECONDS).mae),
            "mae_persistence": _figure(score.mae_persistence),
            "mae_seasonal_naive": _figure(score.mae_experts["seasonal_naive"]),
            "mae_experts": {name: _figure(error) for name, error in score.mae_experts.items()},
            "coverage": _figure(score.coverage),
            "scored": score.count,
            "epsilon_per_unit": float(self.contract.privacy.epsilon),
        }
        self.result.plot = str(self._draw(issued, shared, truth))
        self.say("scored", 1, 1)

    def _issued(self, _: str, record: dict[str, Any]) -> evaluate.Issued:
        target = int((record["target"] - EPOCH).total_seconds() * 1000) // self.spec.step_ms
        bounds = record["quantiles"]
        experts = tuple(record["experts"])
        return evaluate.Issued(record["key"], target, record["value"], bounds[0], bounds[-1], experts)

    def _shared(self, read: AvroReader, watch: Watch) -> dict[Place, float]:
        public = self.contract.public()
        time_name, value_name = public["time"]["attribute"], public["fields"][self.spec.target]["attribute"]
        found: dict[Place, float] = {}
        for key, value in watch.records[self.contract.topics.shared]:
            _, record = read(value)
            slot = int((record[time_name] - EPOCH).total_seconds() * 1000) // self.spec.step_ms
            found[key.decode(), slot] = float(record[value_name])
        return found

    def _draw(self, issued: list[evaluate.Issued], shared: dict[Place, float], truth: evaluate.Truth) -> Path:
        whole = [one for one in issued if (one.key, one.target) in truth and (one.key, one.target) in shared]
        last = whole[-1].target
        points = [
            plot.Point(
                at=datetime.fromtimestamp(one.target * self.spec.step_ms / 1000, TEST_FROM.tzinfo),
                truth=truth[one.key, one.target],
                shared=shared[one.key, one.target],
                forecast=one.value,
                low=one.low,
                high=one.high,
            )
            for one in whole
            if one.target > last - SHOWN_DAYS * self.spec.day
        ]
        privacy = self.contract.privacy
        self.output.mkdir(parents=True, exist_ok=True)
        file = self.output / "forecast.png"
        title = (
            f"{CONTRACT}, {issued[0].key}: forecasts learned from shared values alone "
            f"(epsilon {privacy.epsilon} a {privacy.protects} and day)"
        )
        level = self.spec.levels[-1] - self.spec.levels[0]
        plot.draw(
            points, file, title=title, unit="vehicles in 5 minutes", level=level, zone=str(TEST_FROM.tzinfo)
        )
        return file

    def _clean_inputs(
        self, truth: evaluate.Truth
    ) -> tuple[tasks.TaskSpec, tuple[float, float], Any, int, int]:
        bounds = Public.of([self.contract.public()], self.spec.target)
        return self.spec, (bounds.lower, bounds.upper), truth, SEED, self.first_slot

    def _denied(self) -> int:
        """From the share agent's last words: its counters are part of the ledger's transactions."""
        lines = [json.loads(line) for line in self._log("share").read_text().splitlines() if line[:1] == "{"]
        return int(sum(lines[-1]["denied"].values()))

    def _log(self, role: str) -> Path:
        return self.home.logs / f"{role}.log"

    def _why(self, role: str) -> str:
        tail = self._log(role).read_text(errors="replace").strip().splitlines()[-3:]
        return "It said last: " + " / ".join(tail) if tail else "It said nothing."


def _sluice(*words: str) -> list[str]:
    return children.python("sluice.cli.main", *words)


def _figure(value: float) -> float:
    return round(value, 4)
