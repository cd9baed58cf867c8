"""Ed25519 keys of a task: the trainer signs its releases, a subscriber pins the public key.

Files: `$SLUICE_HOME/signers/<task>.key` (PKCS#8 PEM, mode 0600) and `<task>.pub` (SubjectPublicKeyInfo PEM).
Ed25519 signatures are deterministic (RFC 8032, section 5.1.6): the same release signed twice gives the same
bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import ConfigurationError

KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Signer:
    """A task's private key. It never leaves this object; `public` is the raw 32 bytes of its public half."""

    _private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    @classmethod
    def generate(cls) -> Signer:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """A key from 32 given bytes; for tests and for keys that an operator derives elsewhere."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public`'s (32 raw bytes) over `message`. Never raises because of input."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A short name of a public key to compare by eye: the first 16 hex digits of its SHA-256, in fours."""
    digest = hashlib.sha256(public).hexdigest()
    return ":".join(digest[i : i + 4] for i in range(0, 16, 4))


def key_files(home: Path, task: str) -> tuple[Path, Path]:
    """Where a task's private and public key live under `home`."""
    return home / "signers" / f"{task}.key", home / "signers" / f"{task}.pub"


def open_signer(home: Path, task: str) -> Signer:
    """The task's signer; made, with both files, at the first call.

    Raises ConfigurationError where the key file is damaged, no Ed25519 key, or readable by others.
    """
    key_file, public_file = key_files(home, task)
    if key_file.exists():
        signer = _read_private(key_file)
    else:
        key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        signer = Signer.generate()
        _write(key_file, _private_pem(signer), 0o600)
    pem = _public_pem(signer)
    if not public_file.exists() or public_file.read_bytes() != pem:
        _write(public_file, pem, 0o644)
    return signer


def read_public(file: Path) -> bytes:
    """The raw 32 bytes of a `.pub` file. Raises ConfigurationError where it is missing or no Ed25519 key."""
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as problem:
        raise ConfigurationError(
            f"{file} is not a readable public key ({type(problem).__name__}).",
            "Copy the trainer's $SLUICE_HOME/signers/<task>.pub there again.",
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(
            f"{file} is not an Ed25519 key.", "Copy the trainer's signers/<task>.pub again."
        )
    return key.public_bytes_raw()


def _read_private(file: Path) -> Signer:
    if file.stat().st_mode & 0o077:
        raise ConfigurationError(f"{file} can be read by other users of this machine.", f"chmod 600 {file}")
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise ConfigurationError(
            f"{file} is not a readable private key ({type(problem).__name__}).",
            "Restore it from a backup, or delete it: subscribers must then pin the new public key.",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{file} is not an Ed25519 key.", "Restore it from a backup.")
    return Signer(key)


def _private_pem(signer: Signer) -> bytes:
    return signer._private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(signer: Signer) -> bytes:
    return signer._private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others even for a moment."""
    part = file.with_suffix(file.suffix + ".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    part.rename(file)
