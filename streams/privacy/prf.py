"""Keyed noise words: AES-256-CMAC over two full blocks, a whole batch in two ECB passes.

docs/privacy.md:

    B = tag(16) | i64 slot | u32 value index | u16 field id | u16 draw
    u = (first 8 bytes of CMAC(k, B)) >> 1

For two full blocks CMAC (RFC 4493) is E(E(tag) xor block2 xor K1), K1 = E(0) doubled in GF(2^128). The
first pass depends on the tag alone and is shared by all fields and draws. The value inside B means that
another value in the same slot would get other noise; the ledger already refuses it.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_MASK = (1 << 128) - 1


class Prf:
    """One noise key. Words are big-endian halves of blocks held as native u64 in memory order."""

    __slots__ = ("_cipher", "_k1")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the noise key has 32 bytes")
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())
        zero = int.from_bytes(self._encrypt(np.zeros((1, 2), np.uint64)).tobytes(), "big")
        doubled = (zero << 1 & _MASK) ^ (0x87 if zero >> 127 else 0)
        self._k1 = np.frombuffer(doubled.to_bytes(16, "big"), np.uint64)

    def _encrypt(self, blocks: Words) -> Words:
        out = np.empty((len(blocks) + 1, 2), np.uint64)  # update_into wants 15 spare bytes
        context = self._cipher.encryptor()
        context.update_into(np.ascontiguousarray(blocks).view(np.uint8).data, out.view(np.uint8).data)
        return out[: len(blocks)]

    def first_pass(self, tags: Words) -> Words:
        """E(tag) xor K1 for tags (n, 2) in memory order; the same shape."""
        return self._encrypt(tags) ^ self._k1

    def words(
        self, first: Words, slots: NDArray[np.int64], values: NDArray[np.int64], field: int, draw: int
    ) -> NDArray[np.int64]:
        """u in 0 .. 2^63 - 1 per row. `first` (n, 2) from `first_pass`, slots i64, values 0 .. 2^32 - 1."""
        second = np.empty_like(first)
        second[:, 0] = slots.view(np.uint64).byteswap()
        second[:, 1] = (values.view(np.uint64) << np.uint64(32) | np.uint64(field << 16 | draw)).byteswap()
        second ^= first
        heads = self._encrypt(second)[:, 0].byteswap()
        return (heads >> np.uint64(1)).view(np.int64)
