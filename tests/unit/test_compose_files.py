"""What `compose prepare` puts where: no container holds more than it needs."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from sluice.stack import compose, security
from sluice.stack.home import Home
from sluice.stack.registry_gate import Passwords


@pytest.fixture
def root(tmp_path: Path) -> Path:
    compose.prepare(tmp_path)
    return tmp_path


def password(root: Path, role: str) -> str:
    return security.password(Home(root), role).get_secret_value()


def test_no_role_holds_the_password_of_another(root: Path) -> None:
    """The registry neither: it answers everybody, and with `admin`'s it could do everything to the broker."""
    for role in security.ROLES:
        files = [file for file in (root / "roles" / role).rglob("*") if file.is_file()]
        text = "".join(file.read_text() for file in files)
        held = {other for other in security.ROLES if password(root, other) in text}
        assert held == {role}
        assert not any(file.stat().st_mode & 0o077 for file in files)


def test_the_registry_knows_everybody_by_digests(root: Path) -> None:
    secrets = root / "roles" / "registry" / "secrets"
    known = Passwords(secrets)

    def signs_in(role: str, given: str) -> bool:
        return known.principal("Basic " + base64.b64encode(f"{role}:{given}".encode()).decode()) == role

    for role in security.ROLES:
        assert signs_in(role, password(root, role))
        assert not signs_in(role, password(root, role)[:-1])
        assert not signs_in(role, "")
    digest = (secrets / "admin").read_text().strip()
    assert digest.startswith("sha256:")
    assert not signs_in("admin", digest)
    assert not signs_in("admin", digest.removeprefix("sha256:"))


def test_the_image_sees_what_it_copies_and_nothing_else() -> None:
    root = Path(__file__).parents[2]
    copied = {
        name
        for line in (root / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for name in line.split()[1:-1]
    }
    lines = (root / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert copied == {line[1:] for line in lines if line.startswith("!")}
