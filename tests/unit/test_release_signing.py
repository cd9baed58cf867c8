"""Keys of a task: private stays private, public can be pinned, damage is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from trainers.signing import Signer, fingerprint, key_files, open_signer, read_public, verify


def test_a_signer_is_made_once(tmp_path: Path) -> None:
    first = open_signer(tmp_path, "traffic")
    private, public = key_files(tmp_path, "traffic")
    assert private.stat().st_mode & 0o777 == 0o600
    assert read_public(public) == first.public == open_signer(tmp_path, "traffic").public
    assert open_signer(tmp_path, "other").public != first.public
    assert not list(private.parent.glob("*.part"))


def test_signatures_are_deterministic_and_verified() -> None:
    signer = Signer.from_seed(bytes(32))
    signature = signer.sign(b"message")
    assert signature == signer.sign(b"message")
    assert verify(signer.public, b"message", signature)
    assert not verify(signer.public, b"Message", signature)
    assert not verify(Signer.from_seed(bytes(31) + b"1").public, b"message", signature)
    assert not verify(b"short", b"message", signature)
    assert not verify(signer.public, b"message", b"")


def test_rfc_8032_vector() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signer = Signer.from_seed(seed)
    assert signer.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1e")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    open_signer(tmp_path, "traffic")
    key_files(tmp_path, "traffic")[0].chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        open_signer(tmp_path, "traffic")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_damaged_files_are_said(tmp_path: Path, content: bytes) -> None:
    open_signer(tmp_path, "traffic")
    private, public = key_files(tmp_path, "traffic")
    private.write_bytes(content)
    public.write_bytes(content)
    with pytest.raises(ConfigurationError, match="private key"):
        open_signer(tmp_path, "traffic")
    with pytest.raises(ConfigurationError, match="public key"):
        read_public(public)
    with pytest.raises(ConfigurationError):
        read_public(tmp_path / "none.pub")


def test_a_lost_public_file_is_written_again(tmp_path: Path) -> None:
    signer = open_signer(tmp_path, "traffic")
    key_files(tmp_path, "traffic")[1].unlink()
    open_signer(tmp_path, "traffic")
    assert read_public(key_files(tmp_path, "traffic")[1]) == signer.public


def test_a_fingerprint_is_short_and_stable() -> None:
    assert fingerprint(bytes(32)) == "6668:7aad:f862:bd77"
