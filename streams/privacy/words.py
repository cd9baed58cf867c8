"""Bytes under every key and tag: big-endian integers, length prefixes, HKDF-Expand, canonical JSON."""

from __future__ import annotations

import hmac
import json
from typing import Any


def lp(*parts: bytes) -> bytes:
    """For each part its length as u32, then the part: no two different lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def i64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand with SHA-256, 32 bytes (RFC 5869 section 2.3; one block, so one HMAC)."""
    return hmac.digest(key, info + b"\x01", "sha256")


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no blanks, ASCII. Values are integers and strings, never floats."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()
