"""Hostile HTTP to the registry, through its own server's parser: each answer is below 500, in the registry's words, and
no role sees what the wall keeps from it.

Input: one byte that chooses who asks (the last choice: raw bytes of a connection as they are), then requests with
FF FF between them: `METHOD path`, a line end, the body.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sluice.stack.registry import server
from sluice.stack.registry_access import ROLES
from sluice.stack.registry_gate import MEDIA_TYPE
from sluice.stack.registry_log import Batch
from sluice.stack.registry_service import Registry
from sluice.stack.registry_store import Record, Store, level_record, schema_record
from tests.fuzz.oracles import require
from tests.registry_door import OUTSIDE, record

PASSWORDS = {role: f"password-of-{role}" for role in ROLES}
BASIC = {role: b"Basic " + base64.b64encode(f"{role}:{word}".encode()) for role, word in PASSWORDS.items()}
WHO = ("admin", "admin", "trainer", "subscriber", "producer", "share", "ops", "nobody", "raw")
SECRET = b"blood_pressure_of_patients"  # stands in a raw schema, and nowhere else
RAW, SHARED = "c.raw.v1-value", "c.shared.v1-value"
ODD_PATHS = (
    "/", "/subjects", "/subjects?deleted=true", "/subjects?subjectPrefix=c", f"/subjects/{RAW}",
    f"/subjects/{RAW}/versions", f"/subjects/{SHARED}/versions", f"/subjects/{SHARED}/versions/latest",
    f"/subjects/{SHARED}/versions/1/schema", f"/subjects/{SHARED}/versions/1/referencedby",
    f"/subjects/{SHARED}?permanent=true", f"/subjects/{SHARED}/versions/-1",
    f"/subjects/{SHARED}/versions/99999999999", "/subjects/x/versions", "/subjects/%2F/versions",
    "/subjects/%FF/versions", "/subjects/%00/versions", "/schemas/ids/1", "/schemas/ids/2?subject=" + SHARED,
    "/schemas/ids/1/schema", "/schemas/ids/2/versions", "/schemas/ids/1/subjects",
    "/schemas/ids/99999999999999999999", "/schemas/types", "/contexts", "/v1/metadata/id",
    f"/compatibility/subjects/{SHARED}/versions/latest?verbose=true", "/compatibility/subjects/x/versions",
    f"/compatibility/subjects/{SHARED}/versions", "/config", f"/config/{SHARED}",
    f"/config/{SHARED}?defaultToGlobal=true", "/mode", f"/mode/{SHARED}", "/mode?force=true", "/docs",
    "/openapi.json", "/../../etc/passwd", "//", "/%", "/%zz", "/a?b=c&b",
)  # fmt: skip
REFERENCE = {"name": "test.Reading", "subject": SHARED, "version": 1}
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get", "X")
BODIES = (
    b"", b"{}", b"[]", b"null", b"1", b'"', b"{", b"[" * 3000, b'{"a":' * 1000, b"\xff", b'{"schema":null}',
    b'{"schema":1}', b'{"schema":"\\ud800"}', b'{"schema":"\\"string\\""}', b'{"schema":"[\\"null\\",\\"long\\"]"}',
    b'{"schema":"{}"}', json.dumps({"schema": record("a")}).encode(),
    json.dumps({"schema": record("a", "b?")}).encode(),
    json.dumps({"schema": record("a", name="Other"), "references": [REFERENCE]}).encode(),
    json.dumps({"schema": '{"type":"record","name":"L","fields":[{"name":"n","type":["null","L"]}]}'}).encode(),
    json.dumps({"schema": '"test.Reading"', "references": [REFERENCE]}).encode(),
    json.dumps({"schema": '{"type":"enum","name":"E","symbols":["a"],"default":"b"}'}).encode(),
    json.dumps({"schema": '{"type":"bytes","logicalType":"decimal","precision":-1}'}).encode(),
    b'{"schema":"\\"long\\"","version":7,"id":99999999999999999999}', b'{"schema":"NaN"}',
    b'{"schema":"x","schemaType":"JSON"}', b'{"compatibility":"FULL"}', b'{"compatibility":"none"}',
    b'{"mode":"IMPORT"}', b'{"mode":"READONLY"}', b'{"mode":"\xc3\x9f"}',
)  # fmt: skip
WORDS = (
    *(basic for basic in BASIC.values()), b"\r\n", b"\r\n\r\n", b"Authorization: ", b"Content-Length: 5",
    b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
    b"Upgrade: websocket\r\nConnection: upgrade", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n", b"Host: x",
    b"http://x/subjects", b"\xff\xff", b'"schema"', b'"references"', b"?deleted=", b"?permanent=true", b'\\"type\\":',
    b'\\"record\\"', b'\\"fields\\":[]', b'\\"name\\":', b'\\"default\\":', b"latest", b"%2F", b"%FF", b"%00",
    b"1" * 30, b'{"schema":"', RAW.encode(), SHARED.encode(), b"Accept: */*",
)  # fmt: skip


class DirectLog:
    """A log that gives back at once what it takes."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None, int]] = []
        self.store: Store = Store()

    def open(self, timeout_seconds: float) -> str:
        return "memory"

    def follow(self, take: Callable[[Batch], None]) -> None:
        return None

    def mark(self) -> int:
        return self.store.applied

    def append(self, records: tuple[Record, ...]) -> int:
        for key, value in records:
            offset = self.store.applied + 1
            self.records.append((key, value, offset))
            self.store.apply(key, value, offset)
        return self.store.applied

    def close(self) -> None:
        return None


@dataclass
class Asked:
    """One request that reached the registry, and what it answered."""

    role: str | None
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    problem: BaseException | None = None


class Wire:
    """The server's side of a connection, in memory."""

    def __init__(self) -> None:
        self.written = bytearray()
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1234) if name in ("peername", "sockname") else default

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        return None

    resume_reading = pause_reading


class Served:
    """One registry, put back to the same state before every input."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-secrets-")
        for role, word in PASSWORDS.items():
            (Path(self._folder.name) / role).write_text(word)
        self.log = DirectLog()
        self.registry = Registry(self.log)
        self.registry.ready = True
        self.log.store = self.registry.store
        self.config = server(self.registry, Path(self._folder.name), 1.0, lifespan="off").config
        self.config.load()
        self._app: Any = self.config.loaded_app
        self.config.loaded_app = self._heard
        self.asked: list[Asked] = []
        self.loop = asyncio.new_event_loop()

    def reset(self) -> None:
        self.log.records.clear()
        self.asked.clear()
        self.registry.store.__init__()  # type: ignore[misc]  # the routes hold this very object
        for at, (subject, text) in enumerate(((RAW, record(SECRET.decode())), (SHARED, record("a"))), 1):
            value = {"subject": subject, "version": 1, "id": at, "schema": text, "deleted": False}
            self.log.append((schema_record(value),))
        self.log.append((level_record(SHARED, "FULL"),))

    async def _heard(self, scope: Any, receive: Any, send: Any) -> None:
        asked = Asked(_role(dict(scope["headers"]).get(b"authorization", b"")))
        self.asked.append(asked)

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                asked.status, asked.headers = message["status"], dict(message["headers"])
            asked.body += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BaseException as problem:
            asked.problem = problem
            raise


def _role(basic: bytes) -> str | None:
    """Whose password that is; independent of the gate's own reading, but for what base64 itself lets pass."""
    scheme, _, token = basic.partition(b" ")
    return next(
        (role for role, known in BASIC.items() if scheme.lower() == b"basic" and token.strip() == known[6:]),
        None,
    )


@cache
def _served() -> Served:
    return Served()


def run(data: bytes) -> None:
    if not data:
        return
    who, rest = WHO[data[0] % len(WHO)], data[1:]
    served = _served()
    served.reset()
    requests = [rest] if who == "raw" else [_request(who, one) for one in rest.split(b"\xff\xff")[:6]]
    written = served.loop.run_until_complete(_connection(served, requests))
    for asked in served.asked:
        if isinstance(asked.problem, LocalProtocolError):
            continue  # the body broke off after its head: the server said 400, and has no ear for the route's answer
        if asked.problem is not None:
            raise asked.problem
        _answer(asked)
    require(b"Traceback" not in written and b"site-packages" not in written, "a stack trace on the wire")
    require(not re.search(rb"HTTP/1\.[01] 5\d\d", written), "a status of 500 or more")
    if not any(asked.role in ("admin", "producer", "share") for asked in served.asked) and SECRET not in data:
        require(SECRET not in written, "a raw schema beyond the wall")
    again = Store()
    for logged in served.log.records:
        again.apply(*logged)
    store = served.registry.store
    require(again.ignored == store.ignored == 0, "the registry wrote what it cannot read")
    require(again.subjects == store.subjects, "its log gives another state than it has")
    require((again.levels, again.modes) == (store.levels, store.modes), "its log gives other levels or modes")
    for versions in store.subjects.values():
        require(
            all(1 <= v.version < 1 << 31 and 0 < v.id < 1 << 31 for v in versions.values()),
            "a number beyond 31 bits",
        )
        require(all(number == v.version for number, v in versions.items()), "a version under another number")


def _answer(asked: Asked) -> None:
    if asked.status == 0:
        return  # the connection was gone before
    require(asked.status < 500, "a status of 500 or more")
    if asked.role is None:
        require(asked.status == 401, "an answer for nobody")
    if asked.role in OUTSIDE:
        require(SECRET not in asked.body, "a raw schema beyond the wall")
    if not asked.headers.get(b"content-type", b"").startswith(MEDIA_TYPE.encode()) or not asked.body:
        return
    told = json.loads(asked.body)
    if asked.status >= 400:
        require(
            isinstance(told, dict) and {"error_code", "message"} <= told.keys(), "an error in other words"
        )
        require(
            str(told["error_code"]).startswith(str(asked.status)) or asked.status in (409, 413, 422),
            "another code",
        )
        require(
            " object at 0x" not in told["message"] and 'File "' not in told["message"],
            "a message of Python's",
        )


def _request(who: str, told: bytes) -> bytes:
    line, _, body = told.partition(b"\n")
    method, _, path = line.partition(b" ")
    head = [method + b" " + path + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body)]
    head.append(b"Content-Type: " + MEDIA_TYPE.encode())
    if who in BASIC:
        head.append(b"Authorization: " + BASIC[who])
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def _connection(served: Served, requests: list[bytes]) -> bytes:
    """What the server writes to requests that come one after the other; a broken connection is opened anew."""
    state, written = ServerState(), b""
    wire = protocol = None
    for request in requests:
        if wire is None or wire.is_closing():
            wire = Wire()
            protocol = H11Protocol(served.config, state, {}, _loop=served.loop)
            protocol.connection_made(wire)  # type: ignore[arg-type]
        assert protocol is not None
        protocol.data_received(request)
        while state.tasks:
            cycle = protocol.cycle
            if cycle is not None and cycle.more_body and not cycle.response_complete:
                protocol.connection_lost(None)  # the rest of its body never comes
            await asyncio.wait(set(state.tasks), timeout=5, return_when=asyncio.FIRST_COMPLETED)
        written += wire.written
        wire.written.clear()
        protocol._unset_keepalive_if_required()
    return written


def mutate(data: bytes, rng: Random) -> bytes:
    """Other requests in place of some, or one more."""
    who, told = data[:1] or b"\0", data[1:].split(b"\xff\xff")
    fresh = f"{rng.choice(METHODS[:4] if rng.random() < 0.9 else METHODS)} {rng.choice(ODD_PATHS)}\n".encode()
    fresh += rng.choice(BODIES)
    match rng.randrange(4):
        case 0:
            told.append(fresh)
        case 1:
            told[rng.randrange(len(told))] = fresh
        case 2:
            at = rng.randrange(len(told))
            told[at] = told[at].partition(b"\n")[0] + b"\n" + rng.choice(BODIES)
        case _:
            who = bytes([rng.randrange(len(WHO) - 1)])
    return who + b"\xff\xff".join(told[-6:])


def seeds() -> Iterator[tuple[str, bytes]]:
    post = f"POST /subjects/{SHARED}/versions\n".encode()
    yield (
        "register",
        b"\0" + post + BODIES[17] + b"\xff\xffGET /subjects/" + SHARED.encode() + b"/versions/2\n",
    )
    yield (
        "references",
        b"\0POST /subjects/x/versions\n" + BODIES[18] + b"\xff\xffPOST /subjects/y/versions\n" + BODIES[20],
    )
    yield (
        "compatible",
        b"\2" + f"POST /compatibility/subjects/{SHARED}/versions?verbose=true\n".encode() + BODIES[16],
    )
    delete = f"DELETE /subjects/{SHARED}\n\xff\xffDELETE /subjects/{SHARED}?permanent=true\n".encode(
        "latin-1"
    )
    yield "delete", b"\0" + delete
    yield "import", b'\0PUT /mode?force=true\n{"mode":"IMPORT"}\xff\xff' + post + BODIES[23]
    yield (
        "level",
        b"\0PUT /config\n"
        + BODIES[26]
        + b"\xff\xffDELETE /config\n\xff\xffGET /config/x?defaultToGlobal=true\n",
    )
    yield "outside", b"\2GET /schemas/ids/1\n\xff\xffGET /subjects\n\xff\xffGET /schemas/ids/2/versions\n"
    yield "nobody", b"\7GET /subjects\n"
    raw = b"GET /subjects HTTP/1.1\r\nHost: x\r\nAuthorization: " + BASIC["ops"] + b"\r\n\r\n"
    yield (
        "raw",
        b"\x08"
        + raw
        + b"POST /subjects/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    )
    for at, path in enumerate(ODD_PATHS):
        if at % 3 == 0:
            yield f"path {at}", b"\0GET " + path.encode() + b"\n"
