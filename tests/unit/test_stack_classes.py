"""Kafka's prepared classes: learnt once, used only where they are ours, never in the way of a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sluice.stack import classes, jars
from sluice.stack.java import Java

JAVA = Java(Path("/nowhere/java"), 25, "this very build")


@pytest.fixture
def class_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    jars.cache_folder().mkdir(mode=0o755, parents=True)
    jar = jars.cache_folder() / "kafka.jar"
    jar.write_bytes(b"a jar")
    return [jar]


def learnt(class_path: list[Path]) -> Path:
    found = classes.file(JAVA, class_path)
    assert found is not None
    return found


def written(options: list[str]) -> bool:
    """A run of Java that writes its classes and ends well."""
    Path(options[0].partition("=")[2]).write_bytes(b"classes")
    return True


def test_what_a_good_run_wrote_is_kept_and_used(class_path: list[Path]) -> None:
    found = learnt(class_path)
    assert classes.options(found) == []
    others = [found.with_name(f"classes-{number:016}.aot") for number in range(classes.KEPT)]
    for number, other in enumerate(others):
        other.write_bytes(b"of another Java")
        os.utime(other, (number, number))
    assert classes.learn(found, written)
    assert classes.options(found) == [f"-XX:AOTCache={found}", "-XX:+VerifySharedSpaces"]
    assert found.stat().st_mode & 0o777 == 0o600
    assert set(found.parent.iterdir()) == {found, *others[1:], *class_path}  # all but the oldest


def test_what_a_failed_run_wrote_is_thrown_away(class_path: list[Path]) -> None:
    found = learnt(class_path)
    assert not classes.learn(found, lambda options: not written(options))
    assert [path.name for path in found.parent.iterdir()] == ["kafka.jar"]


def test_another_java_another_jar_other_classes(class_path: list[Path]) -> None:
    found = learnt(class_path)
    assert classes.file(Java(JAVA.executable, 25, "another build"), class_path) != found
    class_path[0].write_bytes(b"another jar")
    assert classes.file(JAVA, class_path) != found


def test_a_named_or_old_java_has_none(class_path: list[Path]) -> None:
    assert classes.file(Java(JAVA.executable, 25), class_path) is None
    assert classes.file(Java(JAVA.executable, 21, JAVA.build), class_path) is None


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_options_of_the_user_that_do_not_go_with_it(
    class_path: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "-Xshare:auto")
    assert classes.file(JAVA, class_path) is None


def test_nothing_is_used_where_others_may_write(class_path: list[Path]) -> None:
    found = learnt(class_path)
    assert classes.learn(found, written)
    found.chmod(0o620)
    assert classes.file(JAVA, class_path) is None
    found.chmod(0o600)
    assert classes.file(JAVA, class_path) == found
    found.parent.chmod(0o775)
    assert classes.file(JAVA, class_path) is None
    found.parent.chmod(0o755)
    if os.geteuid() == 0:  # nobody else can give a file away
        os.chown(found, 7777, -1)
        assert classes.file(JAVA, class_path) is None
