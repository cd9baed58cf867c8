"""What every request passes before any route sees it: sign in, size, readiness. Nothing is served to an
anonymous one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice.stack import registry_replies as reply
from sluice.stack.registry_access import ROLES
from sluice.stack.registry_replies import Refused

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
LARGEST_BODY = 512 * 1024  # bytes; a record of the log may have 1 MB
DIGEST = b"sha256:"
_NOBODY = b"\0" * 32  # compared with when there is no such principal, so that both answers take the same time


class Passwords:
    """The stack's passwords, one file per principal, read at each request: a changed one holds at once.

    A file may hold `sha256:` and the hex digest instead: enough to recognise the password, not to sign in elsewhere.
    Without salt, since passwords are 192 random bits.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def principal(self, authorization: str | None) -> str | None:
        """Who signs in with this `Authorization` header; None for nobody. Takes constant time in the
        password.
        """
        scheme, _, token = (authorization or "").partition(" ")
        try:
            name, _, given = base64.b64decode(token.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        known = self._read(name) if name in ROLES else b""  # never a path out of a request
        if known.startswith(DIGEST):
            known, given = known.removeprefix(DIGEST), hashlib.sha256(given.encode()).hexdigest()
        same = hmac.compare_digest(given.encode(), known or _NOBODY)
        return name if same and known and scheme.lower() == "basic" else None

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes().strip()
        except OSError:
            return b""


class Gate:
    """ASGI middleware. Puts the principal into `scope["principal"]`; leaves percent-encoding in the path's
    pieces.

    Starlette decodes the path before it splits it, so that a subject with an encoded slash would be two
    pieces; routes get the encoded path here and decode each piece themselves.
    """

    def __init__(self, app: ASGIApp, passwords: Passwords, ready: Callable[[], bool]) -> None:
        self._app = app
        self._passwords = passwords
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            principal = self._passwords.principal(headers.get(b"authorization", b"").decode("latin-1"))
            if principal is None:
                raise reply.not_signed_in()
            if not self._ready():
                raise reply.starting()
            body = await _read_body(receive)
        except Refused as refused:
            await _refuse(send, refused)
            return
        path = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace")

        async def replay() -> Message:
            nonlocal body
            rest, body = body, b""
            return {"type": "http.request", "body": rest, "more_body": False}

        await self._app({**scope, "path": path, "principal": principal}, replay, send)


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise reply.too_large(LARGEST_BODY)
        if not message.get("more_body", False):
            return bytes(body)


async def _refuse(send: Send, refused: Refused) -> None:
    body = json.dumps({"error_code": refused.code, "message": refused.message}).encode()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="schemas"'))
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    if refused.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
