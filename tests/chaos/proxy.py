"""A network between a Kafka client and its broker that can be cut, reset, slowed down, go silent, or hold an EndTxn.

The broker tells clients its own address in Metadata and FindCoordinator answers. There the proxy writes its own port:
an address has the same length with any port, so nothing else of the answer changes. Frames are a length and a payload;
a request's first two bytes are its API key, and a connection's answers come in the order of its requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
METADATA, FIND_COORDINATOR, HEARTBEAT, END_TXN, TXN_OFFSET_COMMIT = 3, 10, 12, 26, 28
REFUSALS = {FIND_COORDINATOR: 15, HEARTBEAT: 16}  # coordinator not available, not coordinator
LOST, HELD, UNANSWERED = "lost-request", "held-request", "held-response"


@dataclass(slots=True)
class Hold:
    """What to do with the next EndTxn.

    LOST: the client's connection breaks, the request arrives `seconds` later, at the worst moment: between the outputs
    of the transaction that is open by then and its offsets. HELD: it waits on a living connection. UNANSWERED: it
    arrives, its answer waits.
    """

    kind: str
    seconds: float


class Link:
    """One client connection and its way up to the broker."""

    def __init__(self, proxy: Proxy, streams: tuple[Any, Any], upper: tuple[Any, Any]) -> None:
        self.proxy = proxy
        self.down_reader, self.down = streams
        self.up_reader, self.up = upper
        self.asked: deque[int] = deque()
        self.silent = self.orphan = False
        self.answer: asyncio.Future[bytes] | None = None

    async def run(self) -> None:
        pumps = [asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.orphan:  # an EndTxn is still on its way
                await asyncio.wait(pumps)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.down.close()
            self.up.close()

    async def _upwards(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(self.down_reader)
                key = struct.unpack_from(">h", frame, 4)[0]
                await self._while_silent()
                if key == END_TXN and (hold := self.proxy.take_hold()) is not None:
                    self.orphan = True
                    await self._end_txn(frame, hold)
                    self.orphan = False
                    if hold.kind == LOST:
                        return
                    continue
                if key == TXN_OFFSET_COMMIT:
                    await self.proxy.release()
                self.asked.append(key)
                self.up.write(frame)
                await self.up.drain()

    async def _downwards(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            while True:
                frame = await _frame(self.up_reader)
                key = self.asked.popleft()
                if self.answer is not None and key == END_TXN:
                    self.answer.set_result(frame)
                    self.answer = None
                    continue
                if key in (METADATA, FIND_COORDINATOR):
                    frame = frame.replace(self.proxy.there, self.proxy.here)
                if not self.proxy.coordinator and key in REFUSALS:
                    frame = frame[:12] + struct.pack(">h", REFUSALS[key]) + frame[14:]
                if self.proxy.delay > 0:
                    await asyncio.sleep(self.proxy.delay)
                await self._while_silent()
                if not self.down.is_closing():
                    self.down.write(frame)
                    await self.down.drain()

    async def _while_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.1)

    async def _end_txn(self, frame: bytes, hold: Hold) -> None:
        proxy = self.proxy
        if hold.kind == UNANSWERED:
            answer = await self._ask(frame)
            await asyncio.sleep(hold.seconds)
            self.down.write(answer)
        elif hold.kind == HELD:
            await asyncio.sleep(hold.seconds)
            self.down.write(answer := await self._ask(frame))
        else:
            reset(self.down)
            await asyncio.sleep(hold.seconds)
            turn, done = asyncio.Event(), asyncio.Event()
            proxy.waiting.append((turn, done))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(turn.wait(), 5)
            answer = await self._ask(frame)
            done.set()
        proxy.ended[f"{hold.kind}: {struct.unpack_from('>h', answer, 12)[0]}"] += 1

    async def _ask(self, frame: bytes) -> bytes:
        self.answer = answer = asyncio.get_running_loop().create_future()
        self.asked.append(END_TXN)
        self.up.write(frame)
        return await asyncio.wait_for(answer, 30)


@dataclass(slots=True, eq=False)
class Proxy:
    """Of one client process.

    `delay`: seconds that each answer waits. `coordinator` False: the group's is nowhere, as while a broker comes back
    that its controller has fenced. `ended`: the broker's error codes for EndTxns that came late, by kind; 0: done.
    """

    upper_port: int
    port: int = 0
    delay: float = 0.0
    coordinator: bool = True
    ended: Counter[str] = field(default_factory=Counter)
    holds: deque[Hold] = field(default_factory=deque)
    links: set[Link] = field(default_factory=set)
    waiting: deque[tuple[asyncio.Event, asyncio.Event]] = field(default_factory=deque)
    _server: asyncio.Server | None = None

    @property
    def there(self) -> bytes:
        return HOST.encode() + struct.pack(">i", self.upper_port)

    @property
    def here(self) -> bytes:
        return HOST.encode() + struct.pack(">i", self.port)

    async def serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=1 << 20)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut(hard=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upper = await asyncio.open_connection(HOST, self.upper_port, limit=1 << 20)
        except OSError:
            reset(writer)
            return
        link = Link(self, (reader, writer), upper)
        self.links.add(link)
        try:
            await link.run()
        except (OSError, TimeoutError):
            reset(writer)
        except asyncio.CancelledError:  # the network is closed; asyncio's own server would log it as an error
            pass
        finally:
            self.links.discard(link)

    def take_hold(self) -> Hold | None:
        return self.holds.popleft() if self.holds else None

    async def release(self) -> None:
        """A transaction has its outputs on the broker and its offsets not yet: late requests go first."""
        while self.waiting:
            turn, done = self.waiting.popleft()
            turn.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 5)

    def cut(self, *, hard: bool) -> None:
        """Every connection: closed in order, or reset."""
        for link in list(self.links):
            for writer in (link.down, link.up):
                reset(writer) if hard else writer.close()

    def silence(self) -> None:
        """Connections that there are stay open and carry nothing any more; new ones work."""
        for link in self.links:
            link.silent = True


class Network:
    """The loop, on a thread of its own, in which proxies live."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.proxies: list[Proxy] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def proxy(self, upper_port: int) -> Proxy:
        found = Proxy(upper_port)
        self._do(found.serve())
        self.proxies.append(found)
        return found

    def call(self, what: Callable[[], Any]) -> Any:
        """Runs it on the loop's thread."""

        async def run() -> Any:
            return what()

        return self._do(run())

    def later(self, seconds: float, what: Callable[[], Any]) -> None:
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, what)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def close(self) -> None:
        async def end() -> None:
            for each in self.proxies:
                await each.close()
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        self.loop.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack(">i", head)[0])


def reset(writer: asyncio.StreamWriter) -> None:
    """RST in place of FIN."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
