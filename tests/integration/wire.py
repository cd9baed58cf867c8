"""A Kafka client with no manners: it asks for what a well-behaved one would not, and shows the bare error
code.

librdkafka looks before it fetches and never talks to a controller; whoever attacks the wall need not. Old
request versions are used where the broker still takes them, since they are the shortest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

NONE, UNKNOWN_TOPIC, INVALID_TOPIC = 0, 3, 17
TOPIC_REFUSED, GROUP_REFUSED, CLUSTER_REFUSED, TRANSACTION_REFUSED = 29, 30, 31, 53
UNSUPPORTED_MECHANISM, SIGN_IN_FAILED = 33, 58
FENCED_EPOCH = 74
NOT_YET = (5, 14, 15, 16)  # no leader, coordinator loading, not available, moved


class Answer:
    """Reads a response field by field."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> int:
        value: int = struct.unpack_from(f">{kind}", self.data, self.at)[0]
        self.at += struct.calcsize(kind)
        return value

    def i8(self) -> int:
        return self.number("b")

    def i16(self) -> int:
        return self.number("h")

    def i32(self) -> int:
        return self.number("i")

    def i64(self) -> int:
        return self.number("q")

    def take(self, length: int) -> bytes:
        self.at += max(length, 0)
        return self.data[self.at - max(length, 0) : self.at]

    def text(self) -> str:
        return self.take(self.i16()).decode()

    def blob(self) -> bytes:
        return self.take(self.i32())

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def text(value: str | None) -> bytes:
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()


def blob(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def one(item: bytes) -> bytes:
    """An array of one."""
    return struct.pack(">i", 1) + item


class Wire:
    """One connection. Every method that asks returns the error code, and data where there is some."""

    def __init__(self, port: int, client_id: str = "wire") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.client_id = client_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def ask(self, key: int, version: int, body: bytes, *, flexible: bool = False) -> Answer:
        """Raises ConnectionError where the broker hangs up."""
        head = struct.pack(">hhi", key, version, 7) + text(self.client_id) + (b"\0" if flexible else b"")
        self.socket.sendall(blob(head + body))
        size = struct.unpack(">i", self._exactly(4))[0]
        answer = Answer(self._exactly(size))
        answer.i32()
        if flexible:
            answer.take(1)
        return answer

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.socket.recv(size - len(found))
            if not part:
                raise ConnectionError("hung up")
            found += part
        return found

    def sign_in(self, user: str, password: str) -> int:
        """SCRAM-SHA-512 (RFC 5802). 0, or the error code of the step that failed."""
        if refused := self.handshake("SCRAM-SHA-512"):
            return refused
        nonce = secrets.token_hex(12)
        first = f"n={user},r={nonce}"
        code, reply = self._authenticate(f"n,,{first}")
        if code:
            return code
        fields = dict(part.split("=", 1) for part in reply.split(","))
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha512")
        final = f"c=biws,r={fields['r']}"
        signed = f"{first},{reply},{final}".encode()
        signature = hmac.digest(hashlib.sha512(client_key).digest(), signed, "sha512")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return self._authenticate(f"{final},p={base64.b64encode(proof).decode()}")[0]

    def handshake(self, mechanism: str) -> int:
        return self.ask(17, 1, text(mechanism)).i16()

    def _authenticate(self, message: str) -> tuple[int, str]:
        answer = self.ask(36, 0, blob(message.encode()))
        code = answer.i16()
        answer.text()
        return code, answer.blob().decode()

    def fetch(self, topic: str, *, replica: int = -1) -> tuple[int, bytes]:
        partition = struct.pack(">iqi", 0, 0, 1 << 20)
        body = struct.pack(">iiiib", replica, 200, 1, 1 << 20, 0) + one(text(topic) + one(partition))
        answer = self.ask(1, 4, body)
        answer.i32(), answer.i32(), answer.text(), answer.i32(), answer.i32()
        code = answer.i16()
        answer.i64(), answer.i64()
        for _ in range(max(answer.i32(), 0)):
            answer.i64(), answer.i64()
        return code, answer.blob()

    def fetch_metadata_log(self, epoch: int = 1) -> tuple[int, bytes]:
        """As a replica of the controller would: the log that holds rights and salted passwords."""
        topic_id = bytes(15) + b"\1"
        partition = struct.pack(">iiqiqi", 0, epoch, 0, 0, -1, 1 << 20) + b"\0"
        body = struct.pack(">iiiibii", -1, 500, 0, 1 << 20, 0, 0, -1)
        body += b"\2" + topic_id + b"\2" + partition + b"\0" + b"\1" + b"\1" + b"\0"
        answer = self.ask(1, 13, body, flexible=True)
        answer.i32()
        code = answer.i16()
        answer.i32()
        if code or answer.varint() < 2:
            return code, b""
        answer.take(16), answer.varint()
        answer.i32()
        code = answer.i16()
        answer.i64(), answer.i64(), answer.i64()
        for _ in range(max(answer.varint() - 1, 0)):
            answer.i64(), answer.i64(), answer.take(1)
        answer.i32()
        return code, answer.take(answer.varint() - 1)

    def produce(self, topic: str, key: bytes, value: bytes | None) -> int:
        records = text(None) + struct.pack(">hi", 1, 5000)
        answer = self.ask(
            0, 3, records + one(text(topic) + one(struct.pack(">i", 0) + blob(batch(key, value))))
        )
        answer.i32(), answer.text(), answer.i32(), answer.i32()
        return answer.i16()

    def describe(self, topic: str) -> int:
        """Metadata by name, and the positions: the error of either."""
        answer = self.ask(3, 4, one(text(topic)) + b"\0")
        answer.i32()
        for _ in range(answer.i32()):
            answer.i32(), answer.text(), answer.i32(), answer.text()
        answer.text(), answer.i32(), answer.i32()
        code = answer.i16()
        answer = self.ask(2, 1, struct.pack(">i", -1) + one(text(topic) + one(struct.pack(">iq", 0, -1))))
        answer.i32(), answer.text(), answer.i32(), answer.i32()
        return code or answer.i16()

    def listed(self) -> set[str]:
        """All topics that the broker shows to this principal."""
        answer = self.ask(3, 4, struct.pack(">i", -1) + b"\0")
        answer.i32()
        for _ in range(answer.i32()):
            answer.i32(), answer.text(), answer.i32(), answer.text()
        answer.text(), answer.i32()
        names = set()
        for _ in range(answer.i32()):
            answer.i16()
            names.add(answer.text())
            answer.i8()
            for _ in range(answer.i32()):
                answer.i16(), answer.i32(), answer.i32()
                answer.take(4 * answer.i32()), answer.take(4 * answer.i32())
        return names

    def offsets_of(self, group: str, topic: str) -> int:
        answer = self.ask(9, 1, text(group) + one(text(topic) + one(struct.pack(">i", 0))))
        answer.i32(), answer.text(), answer.i32(), answer.i32(), answer.i64(), answer.text()
        return answer.i16()

    def commit_offset(self, group: str, topic: str) -> int:
        body = text(group) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
        answer = self.ask(8, 2, body + one(text(topic) + one(struct.pack(">iq", 0, 0) + text(None))))
        answer.i32(), answer.text(), answer.i32(), answer.i32()
        return answer.i16()

    def describe_group(self, group: str) -> int:
        answer = self.ask(15, 0, one(text(group)))
        answer.i32()
        return answer.i16()

    def join_group(self, group: str) -> int:
        body = text(group) + struct.pack(">ii", 6000, 6000) + text("") + text("consumer")
        answer = self.ask(11, 2, body + one(text("range") + blob(b"\0\0\0\0\0\0\0\0\0\0")))
        answer.i32()
        return answer.i16()

    def delete_group(self, group: str) -> int:
        answer = self.ask(42, 0, one(text(group)))
        answer.i32(), answer.i32(), answer.text()
        return answer.i16()

    def coordinator(self, name: str, kind: int) -> int:
        """`kind` 0: of a group, 1: of a transactional id."""
        answer = self.ask(10, 1, text(name) + struct.pack(">b", kind))
        answer.i32()
        return answer.i16()

    def begin_as(self, transactional_id: str) -> int:
        """InitProducerId: from here on the id's former owner is fenced."""
        answer = self.ask(22, 0, text(transactional_id) + struct.pack(">i", 10_000))
        answer.i32()
        return answer.i16()

    def end_transaction(self, transactional_id: str) -> int:
        """Commit another's transaction, guessing its producer id."""
        answer = self.ask(26, 0, text(transactional_id) + struct.pack(">qhb", 0, 0, 1))
        answer.i32()
        return answer.i16()


def patient(ask: Callable[[], int]) -> int:
    """Ask again while the coordinator or the leader is still being made."""
    end = time.monotonic() + 20
    while True:
        code = ask()
        if code not in NOT_YET or time.monotonic() > end:
            return code
        time.sleep(0.1)


def batch(key: bytes, value: bytes | None) -> bytes:
    """One record as a record batch of format 2."""
    body = b"\0\0\0" + zigzag(len(key)) + key
    body += (zigzag(-1) if value is None else zigzag(len(value)) + value) + b"\0"
    record = zigzag(len(body)) + body
    now = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    crc = struct.pack(">I", crc32c(tail))
    rest = struct.pack(">ib", -1, 2) + crc + tail
    return struct.pack(">qi", 0, len(rest)) + rest


def zigzag(number: int) -> bytes:
    value = (number << 1) ^ (number >> 63)
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit: these batches are a hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
