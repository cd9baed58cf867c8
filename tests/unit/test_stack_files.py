"""The files of a stack: home, secrets, the lock of jars, the records of running processes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, FatalError
from sluice.stack import broker_settings, jars, java, runs, security
from sluice.stack.home import Home, write_private


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_folders_and_secrets_are_closed(home: Home) -> None:
    security.ensure_passwords(home)
    assert security.check_private(home) == []
    assert {file.name for file in home.secrets.iterdir()} == set(security.ROLES)
    for folder in (home.secrets, home.config, home.data, home.logs, home.run):
        assert folder.stat().st_mode & 0o077 == 0
    (home.secrets / "ops").chmod(0o644)
    assert security.check_private(home) == [home.secrets / "ops"]


def test_a_new_home_is_closed(tmp_path: Path) -> None:
    """Whoever may write there may put another `secrets` in its place, or another broker into stack.json."""
    before = os.umask(0)
    try:
        home = Home(tmp_path / "new")
        home.create()
    finally:
        os.umask(before)
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_passwords_are_made_once(home: Home) -> None:
    security.ensure_passwords(home)
    first = {role: security.password(home, role).get_secret_value() for role in security.ROLES}
    security.ensure_passwords(home)
    assert first == {role: security.password(home, role).get_secret_value() for role in security.ROLES}
    assert len(set(first.values())) == len(security.ROLES)


def test_a_missing_password_has_a_remedy(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="No password for principal 'ops'"):
        security.password(home, "ops")


def test_scram_arguments_hold_no_password_and_the_right_key(home: Home) -> None:
    security.ensure_passwords(home)
    text = "\n".join(security.scram_arguments(home))
    for role in security.ROLES:
        secret = security.password(home, role).get_secret_value()
        assert secret not in text
        found = re.search(rf'name="{role}",iterations=(\d+),salt="([^"]+)",saltedpassword="([^"]+)"', text)
        assert found is not None
        salt = base64.b64decode(found[2])
        salted = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, int(found[1]))
        assert base64.b64decode(found[3]) == salted


def test_every_listener_asks_who_is_there(home: Home) -> None:
    security.ensure_passwords(home)
    found = security.settings(home, {"CLIENT": 1, "INTERNAL": 2, "CONTROLLER": 3})
    protocols = dict(part.split(":") for part in found["listener.security.protocol.map"].split(","))
    assert set(protocols.values()) == {"SASL_PLAINTEXT"}
    assert all("127.0.0.1:" in part for part in found["listeners"].split(","))
    assert found["allow.everyone.if.no.acl.found"] == "false"
    assert found["super.users"] == "User:admin;User:broker"


def test_settings_of_the_design() -> None:
    text = broker_settings.properties(broker_settings.NODE, {"node.id": "2"})
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["node.id"] == "2"
    assert lines["auto.create.topics.enable"] == "false"
    assert lines["transaction.abort.timed.out.transaction.cleanup.interval.ms"] == "1000"
    assert lines["group.min.session.timeout.ms"] == "1000"
    assert {"--enable-native-access=ALL-UNNAMED"} <= set(broker_settings.java_options(25, "c", "l"))
    assert not {"--enable-native-access=ALL-UNNAMED"} & set(broker_settings.java_options(17, "c", "l"))


def test_stack_json_is_written_whole_and_closed(home: Home) -> None:
    assert home.stack() == {}
    home.write_stack({"bootstrap": "127.0.0.1:1"})
    assert home.stack()["bootstrap"] == "127.0.0.1:1"
    assert home.stack_file.stat().st_mode & 0o077 == 0
    assert [file.name for file in home.path.iterdir() if file.name.startswith(".")] == []
    home.stack_file.write_text("{")
    with pytest.raises(ConfigurationError, match="damaged"):
        home.stack()


def test_the_lock_of_jars_is_whole() -> None:
    found = jars.locked()
    assert len(found) == len({jar.name for jar in found}) == 46
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 1000 for jar in found)
    names = {jar.name for jar in found}
    assert f"kafka_2.13-{jars.KAFKA_VERSION}.jar" in names
    assert any(name.startswith("log4j-slf4j-impl") for name in names)


def test_a_cache_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    """The checksums hold when they are looked at; a jar is opened, and opened again after a crash, later."""
    tmp_path.chmod(0o755)
    jars.check_closed(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="Others may write"):
        jars.check_closed(tmp_path)
    if os.geteuid() == 0:  # nobody else can give a folder away
        tmp_path.chmod(0o755)
        os.chown(tmp_path, 7777, -1)
        with pytest.raises(ConfigurationError, match="Others may write"):
            jars.check_closed(tmp_path)


def test_a_named_folder_must_hold_this_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA_JARS", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"no kafka_2.13-4.2.\*.jar"):
        jars.class_path()
    (tmp_path / "kafka_2.13-4.3.1.jar").write_bytes(b"")
    with pytest.raises(ConfigurationError):
        jars.class_path()
    (tmp_path / "kafka_2.13-4.2.9.jar").write_bytes(b"")  # not pinned: the user's own choice
    assert len(jars.class_path()) == 2
    (tmp_path / f"kafka_2.13-{jars.KAFKA_VERSION}.jar").write_bytes(b"")
    with pytest.raises(FatalError, match="checksum"):
        jars.class_path()


def test_java(tmp_path: Path) -> None:
    ours = java.find("")
    assert ours.version >= 17
    assert ours.executable.exists()
    with pytest.raises(ConfigurationError, match="there is no java program"):
        java.find(str(tmp_path))
    for printed, version in (('openjdk version "1.8.0_402"', 8), ('java version "21.0.1" LTS', 21)):
        program = tmp_path / "bin" / "java"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
        program.chmod(0o755)
        if version >= java.LEAST_VERSION:
            assert java.find(str(tmp_path)).version == version
        else:
            with pytest.raises(ConfigurationError, match=f"Java {version}"):
                java.find(str(program))


def test_running_processes_show_and_dead_ones_go(home: Home) -> None:
    with runs.running(home.path, "share", "a.contract"):
        (run,) = runs.runs(home.path)
        assert (run.role, run.pid, run.of) == ("share", os.getpid(), "a.contract")
        assert run.rss_bytes > 1 << 20
    assert runs.runs(home.path) == []

    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    for name, pid, started in (("share", child.pid, "1"), ("train", os.getpid(), "not when this one began")):
        record = {"role": name, "pid": pid, "started": started, "of": ""}
        (home.run / f"{name}-{pid}.json").write_text(json.dumps(record))
    (home.run / "publish-1.json").write_text("{")
    assert runs.runs(home.path) == []
    assert list(home.run.iterdir()) == []


def test_a_home_that_cannot_be_written_to_stops_no_command() -> None:
    with runs.running(Path("/proc/none"), "subscribe"):
        pass


def test_write_private_leaves_no_half(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "one")
    write_private(file, "two")
    assert file.read_text() == "two"
    assert list(tmp_path.iterdir()) == [file]
