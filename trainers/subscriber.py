"""Follow a task's signed models: `model = subscribe("traffic", connection)`, then `model.forecast(key)`.

A thread reads manifests and chunks (`read_committed`, no consumer group: every subscriber sees every
release), lets `follower.py` decide, and tells the trainer's side in `models.<task>.acks.v1`. It starts at the
newest release that holds, whatever its age; later ones are taken in order. Of a release that does not hold,
the old model stays in use.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from schemas.errors import RetriableError
from streams.kafka.clients import Connection
from trainers.acks import Acks
from trainers.follower import Chunks, Follower, Update
from trainers.lookup import schema_lookup
from trainers.manifest import Manifest, RefusedError
from trainers.pins import Pin, open_pin, save_pin
from trainers.releases import Entry, ReleaseLog
from trainers.serving import Forecast, Model

__all__ = ["Forecast", "Subscription", "Update", "subscribe"]

CHUNK_SECONDS = 10.0  # a manifest commits together with its chunks, so all are there or never will be
RETRY_SECONDS = 2.0
HISTORY = 256

log = structlog.get_logger("sluice.subscribe")


def subscribe(
    task: str,
    connection: Connection,
    *,
    home: Path | None = None,
    public_key: bytes | Path | None = None,
    name: str | None = None,
    timeout_seconds: float = 30.0,
    on_update: Callable[[Update], None] | None = None,
) -> Subscription:
    """Follow `task` in the background; returns at once, the first `forecast` waits for the first model.

    The signer is `public_key` (32 bytes or a `.pub` file), else `$SLUICE_HOME/signers/<task>.pub`, else the
    one remembered in `$SLUICE_HOME/pins`, else the first one seen, which is then remembered. `name` (default:
    host name) stands in acks. `on_update` is called on the background thread for each release applied or
    refused.

    Raises ConfigurationError where a key file is damaged.
    """
    pin = open_pin(home, task, public_key)
    return Subscription(task, connection, pin, home, name or socket.gethostname(), timeout_seconds, on_update)


class Subscription:
    """The newest verified model of a task, kept up to date until `close()`."""

    def __init__(
        self,
        task: str,
        connection: Connection,
        pin: Pin,
        home: Path | None,
        name: str,
        timeout_seconds: float,
        on_update: Callable[[Update], None] | None,
    ) -> None:
        self.task = task
        self._connection = connection
        self._home = home
        self._timeout = timeout_seconds
        self._on_update = on_update
        self._follower = Follower(task, pin, schema_lookup(connection))
        self._name = name
        self._history: deque[Update] = deque(maxlen=HISTORY)
        self._changed = threading.Condition()
        self._problem: Exception | None = None  # RetriableError: it tries again; else the thread has ended
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"sluice-subscribe-{task}", daemon=True)
        self._thread.start()

    def forecast(self, key: str) -> Forecast:
        """The newest model's forecast for `key`. Raises UnknownKeyError, and what `model` raises."""
        return self.model.forecast(key)

    @property
    def model(self) -> Model:
        """The model in use; waits for the first one.

        Raises RetriableError when none came in time, WallError or another FatalError when none can come.
        """
        return self._follower.model or self.wait(0, self._timeout)

    @property
    def keys(self) -> tuple[str, ...]:
        return self.model.keys

    @property
    def version(self) -> int:
        """The version in use, 0 before the first."""
        model = self._follower.model
        return model.manifest.version if model else 0

    @property
    def problem(self) -> Exception | None:
        """Why no news can come, None while they can. A RetriableError passes by itself; after any other the
        subscription has ended, and the model in use grows old (see `Forecast.as_of`).
        """
        return self._problem

    @property
    def pin(self) -> Pin:
        """Whose signature is asked for (`.fingerprint`) and where that comes from (`.origin`)."""
        return self._follower.pin

    @property
    def history(self) -> tuple[Update, ...]:
        """The last 256 releases, applied or refused, oldest first."""
        with self._changed:
            return tuple(self._history)

    def wait(self, version: int, timeout_seconds: float) -> Model:
        """The model once its version is above `version`. Raises as `model` does."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._stopping.is_set() or self.version > version,
                timeout_seconds,
            )
            model = self._follower.model
            if model is not None and model.manifest.version > version:
                return model
            if self._problem is not None:
                raise self._problem
            refused = [update for update in self._history if not update.applied]
        wanted = f"release after version {version}" if version else "verified release"
        raise RetriableError(
            f"No {wanted} of task {self.task!r} within {timeout_seconds:g} s"
            + (f"; the last one was refused: {refused[-1].reason}." if refused else "."),
            f"Is `sluice train {self.task}` running, and has it published one yet?",
        )

    def next_model(self, version: int) -> Model:
        """The model once its version is above `version`, however long that takes. Raises what ends the
        thread.
        """
        while True:
            try:
                return self.wait(version, 1.0)
            except RetriableError:
                if self._stopping.is_set() or not self._thread.is_alive():
                    raise

    def close(self) -> None:
        """Ends the background thread. The model in use can still forecast. Safe to call twice."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Subscription({self.task!r}, version {self.version}, signer {self.pin.fingerprint})"

    @property
    def _ended(self) -> bool:
        return self._problem is not None and not isinstance(self._problem, RetriableError)

    def _main(self) -> None:
        while not self._stopping.is_set():
            try:
                self._attend()
            except Exception as problem:
                self._tell(problem)
                if self._ended:
                    log.error("subscription stopped", task=self.task, error=type(problem).__name__)
                    return
                log.warning("subscription begins anew", task=self.task, why=str(problem))
                self._stopping.wait(RETRY_SECONDS)

    def _attend(self) -> None:
        releases_of = ReleaseLog(self._connection, self.task, self._name, self._timeout, self._tell)
        with releases_of as releases, Acks(self._connection, self.task) as acks:
            self._tell(None)
            self._acks = acks
            self._begin(releases)
            self._follow(releases)

    def _tell(self, problem: Exception | None) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()

    def _begin(self, releases: ReleaseLog) -> None:
        """Takes the release of the highest version that holds.

        By the signed version, not by the place in the log: whoever may write there can send an old release again,
        and it would be the newest record.
        """
        judged = [(entry, self._judged(entry)) for entry in releases.newest_first()]
        good = [(entry, found) for entry, found in judged if isinstance(found, Manifest)]
        good.sort(key=lambda pair: -pair[1].version)
        last = good[0][0].offset if good else -1
        for entry, found in judged if self._follower.model is None else ():
            if isinstance(found, RefusedError) and entry.offset > last:
                self._note(releases, entry, found)
                if found.reason == "not-newer" and not good:
                    break  # one is enough to say what all are
        for entry, manifest in good:
            chunks = Chunks()
            try:
                releases.gather(manifest, entry, chunks, CHUNK_SECONDS, self._stopping)
                self._follower.take(manifest, chunks.view())
            except RefusedError as refusal:
                self._note(releases, entry, refusal)
                continue
            self._note(releases, entry, None)
            return

    def _judged(self, entry: Entry) -> Manifest | RefusedError:
        try:
            return self._follower.consider(entry.value)
        except RefusedError as refusal:
            return refusal

    def _follow(self, releases: ReleaseLog) -> None:
        chunks, waiting = Chunks(), deque[Entry]()
        while not self._stopping.is_set():
            waiting.extend(releases.poll(chunks, timeout_seconds=0.5))
            silence = releases.silence()
            if silence is not None or self._problem is not None:
                self._tell(silence)
            while waiting and self._decide(releases, waiting[0], chunks):
                waiting.popleft()

    def _decide(self, releases: ReleaseLog, entry: Entry, chunks: Chunks) -> bool:
        """Whether the entry is done with; False while its chunks may still come."""
        try:
            manifest = self._follower.consider(entry.value)
            if not chunks.has(manifest) and time.monotonic() - entry.seen < CHUNK_SECONDS:
                return False
            self._follower.take(manifest, chunks.view())
        except RefusedError as refusal:
            self._note(releases, entry, refusal)
        else:
            self._note(releases, entry, None)
            chunks.drop_to(manifest.version)
        return True

    def _note(self, releases: ReleaseLog, entry: Entry, refusal: RefusedError | None) -> None:
        model = self._follower.model
        if refusal is None and model is not None:
            update = Update(model.manifest.release, model.manifest.version, True)
            if self._home is not None and not save_pin(self._home, self.task, self._follower.pin):
                log.warning("cannot remember the signer", task=self.task, home=str(self._home))
        else:
            update = Update(entry.key, entry.version, False, str(refusal))
            log.warning("release refused", task=self.task, release=entry.key, reason=str(refusal))
        self._acks.send(self._name, update, refusal.reason if refusal else "")
        releases.done(entry)
        with self._changed:
            self._history.append(update)
            self._changed.notify_all()
        if self._on_update is not None:
            try:
                self._on_update(update)
            except Exception as problem:
                log.error("on_update failed", task=self.task, error=type(problem).__name__)
