"""A Faust app without Faust's Kafka: agents, supervision, timers and life cycle; I/O is the pipe's.

Faust's own consumer acks an event whose agent raised, can commit past an unacked one, and sends outside the
transaction on a rebalance; its web server shows tables on every interface; it declares topics behind one's
back. None of these parts is started.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable

import faust
from faust.app.base import BootStrategy


class _WithoutKafka(BootStrategy):
    enable_kafka = False
    enable_web = False
    enable_sensors = False


class App(faust.App):
    """`flow_control.resume()` once, or channels never deliver: without a consumer nobody else calls it."""

    BootStrategy = _WithoutKafka

    def __init__(self, name: str) -> None:
        super().__init__(
            name, broker="kafka://", web_enabled=False, autodiscover=False, topic_disable_leader=True
        )

    def _create_directories(self) -> None:
        """Faust's folders for tables, in the folder where the user stands: there are no tables."""

    async def on_started(self) -> None:
        await super().on_started()
        self.flow_control.resume()


def run(app: App, ended: Callable[[], Awaitable[None]]) -> None:
    """Runs the app in this thread until SIGINT, SIGTERM or until `ended()` returns or raises; then stops it
    in order.

    Raises what `ended` raised, and what the app crashed with.
    """
    _collect_rarely()
    asyncio.run(_run(app, ended))


def _collect_rarely() -> None:
    """A poll makes tens of thousands of messages at once, and the collector looks at all objects again and again:
    by default .6 of 1.3 CPU s per million messages. Modules are set aside, and young objects may be more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


async def _run(app: App, ended: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    await app.start()
    waits = [asyncio.ensure_future(each) for each in (signalled.wait(), ended(), app.wait_until_stopped())]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        await app.stop()
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if app.crash_reason is not None:
        raise app.crash_reason
