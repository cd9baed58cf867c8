"""An epoch of a contract is shared by one version of it, whatever becomes of topics, ledger and cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.contract import Contract
from streams.privacy import keystore
from streams.privacy.ledger import Ledger
from streams.privacy.plan import Plan
from streams.privacy.versions import Versions
from streams.sharing import Shared, share
from tests.privacy_cases import DAY_MS, EPOCH, MINUTE_MS, START_MS, chain, contract, raw, run, walk


def opened(home: Path, of: Contract) -> Versions:
    return Versions.open(home, of, Plan.of(of))


def shared(of: Contract, versions: Versions, ledger: Ledger, *days: int) -> Shared:
    rows = [walk(at=START_MS + day * DAY_MS + 5 * MINUTE_MS) for day in days]
    return run(raw(of, rows, [row["at"] for row in rows]), Plan.of(of), chain(), ledger, versions.own)


ONE = contract()
TWO = contract(version="2.0.0")


def test_the_next_major_version_begins_behind_the_last_epoch_of_the_first(tmp_path: Path) -> None:
    """It has topics and a ledger of its own: without this every slot would be shared twice, noised anew."""
    first, ledgers = opened(tmp_path, ONE), (Ledger(), Ledger())
    assert shared(ONE, first, ledgers[0], 0, 1).denied == {}
    second = opened(tmp_path, TWO)
    assert second.begins_ms == START_MS + 2 * DAY_MS
    assert shared(TWO, second, ledgers[1], 0, 1, 2).denied == {"version-changed": 2}
    late = shared(ONE, first, ledgers[0], -1, 0, 1, 2, 3)
    assert late.denied == {"slot-used": 2, "version-changed": 2}
    assert late.shared_rows.tolist() == [0]
    again = opened(tmp_path, TWO)
    assert again.begins_ms == second.begins_ms
    assert shared(TWO, again, Ledger(), 1, 2, 3).denied == {"version-changed": 1}


def test_going_back_begins_behind_as_well(tmp_path: Path) -> None:
    ledger = Ledger()
    shared(ONE, opened(tmp_path, ONE), ledger, 0)
    shared(TWO, opened(tmp_path, TWO), Ledger(), 1)
    back = shared(ONE, opened(tmp_path, ONE), ledger, 0, 1, 2)
    assert back.denied == {"slot-used": 1, "version-changed": 1}
    assert back.shared_rows.tolist() == [2]


def test_a_lost_ledger_does_not_let_a_changed_section_in(tmp_path: Path) -> None:
    """Kafka gone or purged, keys kept; or nothing committed yet, and only an aborted transaction seen."""
    of = contract(epsilon="12")
    share(raw(ONE, [walk()]), Plan.of(ONE), chain(), Ledger(), opened(tmp_path, ONE).own)  # never committed
    assert shared(of, opened(tmp_path, of), Ledger(), 0, 1).denied == {"version-changed": 1}
    same = opened(tmp_path, of)
    assert shared(of, same, Ledger(), 1).denied == {}  # its own epoch: the same bytes again


def test_another_population_is_another_version(tmp_path: Path) -> None:
    """It has other keys: naming the people anew would noise them anew."""
    other = contract(more="population: others")
    shared(ONE, opened(tmp_path, ONE), Ledger(), 0)
    assert not opened(tmp_path, other).own(EPOCH)


def test_what_has_shared_nothing_holds_nothing(tmp_path: Path) -> None:
    first, second = opened(tmp_path, ONE), opened(tmp_path, TWO)
    assert second.begins_ms is None
    assert second.own(EPOCH)
    assert not first.own(EPOCH)
    assert not first.own(EPOCH + 9)


def test_an_epoch_across_the_border_is_nobodys(tmp_path: Path) -> None:
    shared(ONE, opened(tmp_path, ONE), Ledger(), 0)
    weekly = contract(version="2.0.0", epoch="{length: week, from: 2016-01-01}")
    versions = opened(tmp_path, weekly)
    week = weekly.privacy.epoch.number(START_MS)
    assert not versions.own(week)
    assert versions.own(week + 1)


def test_short_epochs_do_not_write_a_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = contract(epoch="{length: 1h, from: 2016-01-01}")
    versions = opened(tmp_path, of)
    first = of.privacy.epoch.number(START_MS)
    written: list[Path] = []
    store = keystore.store

    def counted(file: Path, content: dict[str, Any]) -> None:
        written.append(file)
        store(file, content)

    monkeypatch.setattr(keystore, "store", counted)
    assert all(versions.own(first + hour) for hour in range(48))
    assert len(written) == 2


def test_a_file_that_is_deleted_while_a_worker_runs_comes_back(tmp_path: Path) -> None:
    versions = opened(tmp_path, ONE)
    assert versions.own(EPOCH)
    (file,) = (tmp_path / "keys").glob("*.versions.json")
    file.unlink()
    assert versions.own(EPOCH + 1)
    assert opened(tmp_path, TWO).begins_ms == START_MS + 2 * DAY_MS
