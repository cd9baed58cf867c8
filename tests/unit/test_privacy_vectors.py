"""docs/privacy.md to the byte: its vectors, and other people's CMAC and HKDF as oracles."""

from __future__ import annotations

import hashlib
import hmac
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from streams.privacy.engines import NumberLaw
from streams.privacy.engines.exact import Exact
from streams.privacy.keys import RATCHET, KeyChain
from streams.privacy.plan import Plan
from streams.privacy.prf import Prf
from streams.privacy.tags import tagger
from streams.privacy.words import canonical, expand, i64, lp
from tests.privacy_cases import DAY_MS, EPOCH, ROOT, contract

TOPIC = "traffic.pems.shared.v1"
TABLE = "332abf57c541c48750a1a3164e2e346f46b1fcfdbeade16f52ac10f3581a7683"
C = (
    b'{"fields":[{"id":1,"kind":"number","lower":"0","mechanism":"clamped-discrete-laplace",'
    b'"nano_epsilon":1000000000,"range":150,"sensitivity":1,"step":"1","table":"' + TABLE.encode() + b'"}]}'
)
C_DIGEST = "3005da696435e128b89b885987635bdf817c3cd1a10e1da6aefd3bc90a02bdb6"
TAG = "665a5066f64a380fb65ec1974e6b9217"
UNIT_KEY = "ad66cb18addf89b4af2877a4676099188da20c7fb90cbba1c83fd85429c3f332"
NOISE_KEY = "5c1cd3f2cf7f8d82951abab494b174ee25411ee36e4623732fd1f16d9b5ee1da"
DRAWS = [
    ((1, 42, 1, 0), 0x2C632CC06F842F34, 0),
    ((1, 43, 1, 0), 0x112FDC5E8CDA5FDB, -1),
    ((2, 42, 1, 0), 0x78994E58B8FA4446, 2),
    ((-3, 150, 1, 0), 0x4C5E8E786C73CD7D, 0),
    ((1, 42, 1, 1), 0x1D341787C7F3D3DE, -1),
]
CHAIN = KeyChain.of_root("vehicles", DAY_MS, 0, EPOCH, ROOT)


def words(tag: bytes) -> np.ndarray:
    return np.frombuffer(tag, np.uint64).reshape(-1, 2)


def test_keys_and_tag() -> None:
    assert hashlib.sha256(C).hexdigest() == C_DIGEST
    assert CHAIN.unit_key(EPOCH).hex() == UNIT_KEY
    assert CHAIN.noise_key(TOPIC, 1, EPOCH, bytes.fromhex(C_DIGEST)).hex() == NOISE_KEY
    assert tagger(CHAIN.unit_key(EPOCH))("detector-1").hex() == TAG


@pytest.mark.parametrize(("block", "u", "z"), DRAWS)
def test_noise_words(block: tuple[int, int, int, int], u: int, z: int) -> None:
    slot, value, field, draw = block
    prf = Prf(bytes.fromhex(NOISE_KEY))
    found = prf.words(
        prf.first_pass(words(bytes.fromhex(TAG))), np.array([slot]), np.array([value]), field, draw
    )
    assert found.tolist() == [u]
    mechanism = Exact().number(NumberLaw(150, 1, 10**9))
    assert mechanism.alias.sample(found).tolist() == [z + 150]


def test_canonical_section_of_a_contract_holds_the_vector() -> None:
    """The law of the vectors, written as a contract, gives their C field by field."""
    plan = Plan.of(
        contract(
            fields="\n    reading: {type: int}\n    at: {type: timestamp}\n    id: {type: string}\n",
            rules="\n    reading: {number: {min: 0, max: 150, per_unit: 1}}\n    at: {time: 5min}\n    id: public\n",
            key="id",
            unit="",
            held="{max: 1, of: [at, id], held_by: assumed, basis: b, attested_by: a}",
            epsilon="1",
        )
    )
    assert canonical({"fields": [plan.fields[0].facts]}) == C
    section = json.loads(plan.canonical)
    assert section["fields"][0]["table"] == TABLE
    assert plan.c_digest == hashlib.sha256(plan.canonical).digest()


def test_cmac_equals_the_libraries() -> None:
    rng = np.random.default_rng(5)
    key = rng.bytes(32)
    prf = Prf(key)
    n = 300
    tags = np.frombuffer(rng.bytes(16 * n), np.uint64).reshape(n, 2)
    slots = rng.integers(-(2**62), 2**62, n)
    values = rng.integers(0, 2**32, n)
    found = prf.words(prf.first_pass(tags), slots, values, 65_535, 7)
    for i in range(n):
        oracle = cmac.CMAC(algorithms.AES(key))
        tail = int(values[i]).to_bytes(4, "big") + b"\xff\xff\x00\x07"
        oracle.update(tags[i].tobytes() + i64(int(slots[i])) + tail)
        assert int.from_bytes(oracle.finalize()[:8], "big") >> 1 == found[i]


def test_first_block_carry_of_cmac() -> None:
    """K1 doubles E(0): both cases of its top bit must be right, so try keys until both occurred."""
    seen = set()
    for number in range(16):
        key = bytes([number]) * 32
        oracle = cmac.CMAC(algorithms.AES(key))
        oracle.update(bytes(32))
        prf = Prf(key)
        zero = np.zeros(1, np.int64)
        found = prf.words(prf.first_pass(np.zeros((1, 2), np.uint64)), zero, zero, 0, 0)
        assert int(found[0]) == int.from_bytes(oracle.finalize()[:8], "big") >> 1
        seen.add(prf._encrypt(np.zeros((1, 2), np.uint64)).tobytes()[0] >> 7)
    assert seen == {0, 1}


def test_expand_is_hkdf() -> None:
    for info in (b"", RATCHET, lp(b"a", b"", i64(-1))):
        assert expand(ROOT, info) == HKDFExpand(hashes.SHA256(), 32, info).derive(ROOT)


def test_roots_ratchet() -> None:
    later = KeyChain.of_root("vehicles", DAY_MS, 0, EPOCH + 2, expand(expand(ROOT, RATCHET), RATCHET))
    assert CHAIN.unit_key(EPOCH + 5) == later.unit_key(EPOCH + 5)
    assert CHAIN.unit_key(EPOCH + 2) == later.unit_key(EPOCH + 2)
    assert CHAIN.unit_key(EPOCH) != CHAIN.unit_key(EPOCH + 1)


def test_pseudonyms_have_a_label_of_their_own() -> None:
    key = expand(ROOT, lp(b"sluice/1/pseudonym", b"vehicles", TOPIC.encode(), b"\0\3", i64(EPOCH)))
    expected = hmac.digest(key, lp(b"x"), "sha256")[:16]
    assert tagger(CHAIN.pseudonym_key(TOPIC, 3, EPOCH))("x") == expected
    others = [CHAIN.pseudonym_key(TOPIC, 4, EPOCH), CHAIN.pseudonym_key("t", 3, EPOCH), CHAIN.unit_key(EPOCH)]
    assert all(tagger(other)("x") != expected for other in others)


def test_length_prefixes_keep_lists_apart() -> None:
    assert lp(b"ab", b"c") != lp(b"a", b"bc")
    assert tagger(ROOT)(("ab", "c")) != tagger(ROOT)(("a", "bc"))
    assert tagger(CHAIN.unit_key(EPOCH))(("detector-1",)).hex() == TAG
