"""The key store: begun once, moved forward only, readable by its owner only, and never silently renewed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from schemas.errors import KeyStoreError
from streams.privacy import keystore
from streams.privacy.keys import KeyChain
from streams.privacy.tags import Names, tagger
from tests.privacy_cases import DAY_MS, EPOCH, START_MS, contract

FROM = 16_801  # 2016-01-01


def file_of(home: Path) -> Path:
    (found,) = (home / "keys").glob("*.json")
    return found


def test_a_chain_begins_at_the_declared_epoch_and_stays(tmp_path: Path) -> None:
    first = KeyChain.open(tmp_path, contract(), START_MS)
    again = KeyChain.open(tmp_path, contract(), START_MS + 90 * DAY_MS)
    assert first.oldest == again.oldest == FROM
    assert first.unit_key(EPOCH) == again.unit_key(EPOCH)
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert "person" not in file_of(tmp_path).name


def test_without_a_declared_epoch_it_begins_at_activation_minus_keep(tmp_path: Path) -> None:
    of = contract()
    undeclared = of.model_copy(
        update={
            "privacy": of.privacy.model_copy(
                update={"epoch": of.privacy.epoch.model_copy(update={"from_ms": None})}
            )
        }
    )
    assert KeyChain.open(tmp_path, undeclared, START_MS + 1).oldest == EPOCH - 2


def test_destroy_moves_forward_for_good(tmp_path: Path) -> None:
    keys = KeyChain.open(tmp_path, contract(), START_MS)
    key, old = keys.unit_key(EPOCH), keys.unit_key(FROM)
    stored = file_of(tmp_path).read_text()
    keys.destroy_before(EPOCH)
    assert keys.oldest == EPOCH
    assert keys.unit_key(EPOCH) == key
    for closed in (FROM, EPOCH - 1):
        with pytest.raises(KeyStoreError, match="closed"):
            keys.unit_key(closed)
    assert json.loads(stored)["root"] not in file_of(tmp_path).read_text()
    again = KeyChain.open(tmp_path, contract(), START_MS)
    assert again.oldest == EPOCH
    assert again.unit_key(EPOCH) == key
    assert old != key
    again.destroy_before(EPOCH - 3)
    assert again.oldest == EPOCH


def test_two_processes_agree(tmp_path: Path) -> None:
    """Whoever begins the chain, and whoever moves it further, wins for all."""
    opened: list[KeyChain] = []
    threads = [
        threading.Thread(target=lambda: opened.append(KeyChain.open(tmp_path, contract(), START_MS)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({keys.unit_key(EPOCH) for keys in opened}) == 1
    key = opened[0].unit_key(EPOCH + 9)
    opened[0].destroy_before(EPOCH + 3)
    opened[1].destroy_before(EPOCH + 1)
    assert opened[1].oldest == EPOCH + 3
    assert KeyChain.open(tmp_path, contract(), 0).unit_key(EPOCH + 9) == key == opened[1].unit_key(EPOCH + 9)


@pytest.mark.parametrize("damage", ["text", "root", "missing", "mode", "empty", "other"])
def test_damage_is_refused_and_never_replaced(tmp_path: Path, damage: str) -> None:
    KeyChain.open(tmp_path, contract(), START_MS)
    file = file_of(tmp_path)
    stored = json.loads(file.read_text())
    if damage == "text":
        file.write_text("{")
    elif damage == "empty":
        file.write_text("")
    elif damage == "root":
        file.write_text(json.dumps(stored | {"root": stored["root"][:-2]}))
    elif damage == "missing":
        file.write_text(json.dumps({name: value for name, value in stored.items() if name != "oldest"}))
    elif damage == "other":
        file.write_text(json.dumps(stored | {"population": "someone else"}))
    else:
        file.chmod(0o644)
    before = file.read_text()
    with pytest.raises(KeyStoreError) as problem:
        KeyChain.open(tmp_path, contract(), START_MS)
    assert problem.value.remedy
    assert stored["root"] not in str(problem.value)
    assert file.read_text() == before


def test_a_population_has_one_epoch_length(tmp_path: Path) -> None:
    KeyChain.open(tmp_path, contract(), START_MS)
    of = contract()
    hourly = of.model_copy(
        update={
            "privacy": of.privacy.model_copy(
                update={"epoch": of.privacy.epoch.model_copy(update={"length_ms": 3_600_000})}
            )
        }
    )
    with pytest.raises(KeyStoreError, match="epochs of"):
        KeyChain.open(tmp_path, hourly, START_MS)


def test_a_write_that_fails_leaves_the_old_chain(tmp_path: Path) -> None:
    KeyChain.open(tmp_path, contract(), START_MS)
    file = file_of(tmp_path)
    chain = keystore.read(file)
    assert chain is not None
    with pytest.raises(KeyStoreError):
        keystore.write(tmp_path / "nowhere" / "chain.json", chain)
    assert keystore.read(file) == chain
    assert "root" not in repr(chain)
    assert sorted(path.suffix for path in (tmp_path / "keys").iterdir()) == [".json", ".lock"]


def test_tag_cache_is_bounded_and_changes_nothing() -> None:
    small = Names(limit=10)
    keys = [bytes(32), bytes(range(32))]
    for start in (0, 3, 8, 0, 40):
        units = [f"unit {i}" for i in range(start, start + 25)]
        ids = small.ids(units)
        for key in keys:
            assert small.tags(key, ids).tobytes() == b"".join(tagger(key)(unit) for unit in units)
        assert len(small._ids) <= 10 + 25
    assert small.tags(keys[0], small.ids([])).shape == (0, 2)
    mixed = Names()
    assert mixed.ids(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]
    assert mixed.ids(["c", "d"]).tolist() == [2, 3]


def test_caches_hold_the_epochs_in_use_only(tmp_path: Path) -> None:
    keys = KeyChain.open(tmp_path, contract(), START_MS)
    found = [keys.names(EPOCH + i).ids(["a"]).tolist() for i in range(100)]
    prfs = [keys.noise_key("t", 1, EPOCH + i, bytes(32)) for i in range(100)]
    for i in range(100):
        keys.prf("t", 1, EPOCH + i, bytes(32))
    assert len(set(prfs)) == len(found) == 100
    assert max(len(keys._roots), len(keys._noise), len(keys._names)) <= 64
