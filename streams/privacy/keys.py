"""The noise keys of one population: a forward-only chain of epoch roots (docs/privacy.md).

    root(e+1) = X(root(e), "sluice/1/ratchet")      X = HKDF-Expand-SHA256
    k_unit    = X(root(e), lp("sluice/1/unit", population, i64 e))
    k_noise   = X(root(e), lp("sluice/1/noise", population, shared topic, u32 major version, i64 e,
                              SHA256(C)))

Only the oldest live root is stored; every younger one follows from it and no older one does, so that
`destroy_before` ends the promise's dependence on a secret. What others copied before cannot be destroyed.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from schemas.errors import KeyStoreError
from streams.privacy import keystore
from streams.privacy.keystore import StoredChain
from streams.privacy.prf import Prf
from streams.privacy.tags import Names
from streams.privacy.words import expand, i64, lp, u16, u32

if TYPE_CHECKING:
    from schemas.contract import Contract

T = TypeVar("T")
RATCHET = b"sluice/1/ratchet"
LIVE_ROOTS = 64  # of the epochs in use; others are ratcheted again, 1 us a step
LIVE_NAMES = 6  # caches of units and pseudonyms, up to 30 MB each
LIVE_NOISE = 32


class KeyChain:
    """Keys by epoch.

    An epoch below `oldest` raises KeyStoreError: `share()` denies its events before it asks, and
    `destroy_before` belongs on its thread. Only `fits` may be asked from another. The caches (roots, noise
    ciphers, tags) hold no more than the epochs in use.
    """

    def __init__(self, file: Path | None, chain: StoredChain) -> None:
        self._file, self._chain = file, chain
        self._roots: OrderedDict[int, bytes] = OrderedDict()
        self._noise: OrderedDict[Any, Prf] = OrderedDict()
        self._names: OrderedDict[tuple[int, int], Names] = OrderedDict()
        self._lock = threading.RLock()  # over chain and roots

    @classmethod
    def open(cls, home: Path, contract: Contract, now_ms: int) -> Self:
        """Open the population's chain under `home`/keys, or begin one with a fresh root.

        A new chain begins at the declared first epoch, else at activation (`now_ms`) minus `keep.raw`. Raises
        KeyStoreError when the file is damaged, readable by others, or of another epoch length or anchor.
        """
        privacy = contract.privacy
        epoch, population = privacy.epoch, privacy.population
        file = keystore.path_of(home, population)
        with keystore.locked(file):
            chain = keystore.read(file)
            if chain is None:
                start = now_ms - contract.keep.raw_ms if epoch.from_ms is None else epoch.from_ms
                first = (start - epoch.anchor_ms) // epoch.length_ms
                root = secrets.token_bytes(32).hex()
                chain = StoredChain(population, epoch.length_ms, epoch.anchor_ms, first, root)
                keystore.write(file, chain)
        if (chain.length_ms, chain.anchor_ms) != (epoch.length_ms, epoch.anchor_ms):
            raise KeyStoreError(
                f"Population {population!r} has epochs of {chain.length_ms} ms from {chain.anchor_ms}; the "
                f"contract {contract.contract} says {epoch.length_ms} ms from {epoch.anchor_ms}.",
                "All contracts of a population share one epoch: correct `privacy.epoch`, or name another "
                "population.",
            )
        if chain.population != population:
            raise KeyStoreError(f"The noise key {file} belongs to another population.", keystore.RESTORE)
        return cls(file, chain)

    @classmethod
    def of_root(cls, population: str, length_ms: int, anchor_ms: int, oldest: int, root: bytes) -> Self:
        """A chain in memory, for tests, `contract try` and benches: nothing is stored."""
        return cls(None, StoredChain(population, length_ms, anchor_ms, oldest, root.hex()))

    @property
    def population(self) -> str:
        return self._chain.population

    @property
    def oldest(self) -> int:
        """The oldest epoch that still has a key."""
        return self._chain.oldest

    def unit_key(self, epoch: int) -> bytes:
        return expand(self._root(epoch), lp(b"sluice/1/unit", self._population, i64(epoch)))

    def noise_key(self, topic: str, major: int, epoch: int, c_digest: bytes) -> bytes:
        """`topic` is the shared topic, `c_digest` the SHA-256 of the canonical privacy section."""
        parts = (b"sluice/1/noise", self._population, topic.encode(), u32(major), i64(epoch), c_digest)
        return expand(self._root(epoch), lp(*parts))

    def pseudonym_key(self, topic: str, field: int, epoch: int) -> bytes:
        """Published pseudonyms.

        Own label, per topic, field and epoch, so that they link nothing to the ledger.
        """
        parts = (b"sluice/1/pseudonym", self._population, topic.encode(), u16(field), i64(epoch))
        return expand(self._root(epoch), lp(*parts))

    def check_value(self, epoch: int) -> bytes:
        """16 bytes that tell whether two chains hold the same root, and nothing else about it."""
        return expand(self._root(epoch), lp(b"sluice/1/check", self._population, i64(epoch)))[:16]

    def fits(self, epoch: int, check: bytes) -> bool:
        """Whether a check value is that of our key; so is any of an epoch whose key is destroyed."""
        with self._lock:
            return epoch < self.oldest or check == self.check_value(epoch)

    def prf(self, topic: str, major: int, epoch: int, c_digest: bytes) -> Prf:
        """The noise words under `noise_key`, kept for the epochs in use."""
        name = (epoch, topic, major, c_digest)
        return _kept(
            self._noise, name, LIVE_NOISE, lambda: Prf(self.noise_key(topic, major, epoch, c_digest))
        )

    def names(self, epoch: int, field: int = 0) -> Names:
        """The cache of an epoch's units (field 0), or of the texts of a field that becomes a pseudonym."""
        return _kept(self._names, (epoch, field), LIVE_NAMES, Names)

    def destroy_before(self, epoch: int) -> None:
        """Move the chain forward on disk and in memory: keys of epochs below `epoch` are gone for good.

        Never moves back, whoever else moves it. Forget the ledger's rows of these epochs with
        `Ledger.retire`.
        """
        if self._file is None:
            if epoch > self.oldest:
                self._forward(self._chain, epoch)
            return
        with keystore.locked(self._file):
            chain = keystore.read(self._file)
            if chain is None:
                raise KeyStoreError(f"The noise key {self._file} is gone.", keystore.RESTORE)
            self._forward(chain, max(epoch, chain.oldest))
            if self._chain != chain:
                keystore.write(self._file, self._chain)

    def _forward(self, chain: StoredChain, epoch: int) -> None:
        root = _ratchet(bytes.fromhex(chain.root), epoch - chain.oldest)
        with self._lock:
            self._chain = StoredChain(chain.population, chain.length_ms, chain.anchor_ms, epoch, root.hex())
            self._roots.clear()
        self._noise.clear()
        for old in [name for name in self._names if name[0] < epoch]:
            del self._names[old]

    @property
    def _population(self) -> bytes:
        return self._chain.population.encode()

    def _root(self, epoch: int) -> bytes:
        with self._lock:
            return self._root_of(epoch)

    def _root_of(self, epoch: int) -> bytes:
        if epoch < self.oldest:
            raise KeyStoreError(
                f"Epoch {epoch} is closed: its key is destroyed.", "Events of closed epochs stay denied."
            )

        def derive() -> bytes:
            nearest = max((e for e in self._roots if e < epoch), default=None)
            if nearest is None:
                return _ratchet(bytes.fromhex(self._chain.root), epoch - self.oldest)
            return _ratchet(self._roots[nearest], epoch - nearest)

        return _kept(self._roots, epoch, LIVE_ROOTS, derive)


def _ratchet(root: bytes, steps: int) -> bytes:
    for _ in range(steps):
        root = expand(root, RATCHET)
    return root


def _kept(cache: OrderedDict[Any, T], name: Any, limit: int, make: Callable[[], T]) -> T:
    """The cached value, made when missing; the one used longest ago leaves."""
    found = cache.get(name)
    if found is None:
        found = cache[name] = make()
        if len(cache) > limit:
            cache.popitem(last=False)
    else:
        cache.move_to_end(name)
    return found
