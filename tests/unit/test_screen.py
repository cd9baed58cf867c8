"""What others wrote, on our terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console

from schemas import contract as contracts
from sluice.cli import contract as contract_cli
from sluice.cli import lag, main, subscribe
from sluice.cli.screen import line, shown
from sluice.ops.lag import GroupLag, PartitionLag
from trainers.serving import Forecast
from trainers.subscriber import Update

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[/b]\r\nb"
TIME = datetime(2026, 1, 1, tzinfo=UTC)


def forecast(key: str, protects: str = "vehicle") -> Forecast:
    return Forecast(
        "t", key, 1.0, 0.0, 2.0, 0.9, TIME, TIME, 1, "r", Decimal(1), protects, ((0.05, 0.0), (0.95, 2.0))
    )


def test_control_characters_become_escapes_and_letters_stay() -> None:
    assert shown("käse 12 %\n") == "käse 12 %\n"
    assert shown(EVIL) == "a\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202e[/b]\\r\nb"
    assert line("a\nb") == "a\\nb"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of the commands' own consoles; without colours, so that each escape in it is another's."""
    out = io.StringIO()

    def console(**more: object) -> Console:
        return Console(file=out, force_terminal=True, color_system=None, width=200, highlight=False)

    for module in (subscribe, lag, main):
        monkeypatch.setattr(module, "Console", console)
    monkeypatch.setattr(subscribe, "error", console())
    monkeypatch.setattr("rich.console.Console", console)
    return out


def harmless(text: str) -> None:
    assert "owned" in text
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def test_a_key_of_a_model(terminal: io.StringIO) -> None:
    """`[/b]` alone ended `sluice subscribe` with a stack trace."""
    subscribe._print([forecast(EVIL, protects=EVIL)], False, 0)
    harmless(terminal.getvalue())


def test_a_key_of_a_model_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    subscribe._print([forecast(EVIL)], False, 0)
    found = capsys.readouterr().out
    harmless(found)
    assert found.count("\n") == 1


def test_the_name_of_a_refused_release(terminal: io.StringIO) -> None:
    subscribe._told(Update(EVIL, 0, False, EVIL))
    harmless(terminal.getvalue())


def test_the_name_of_a_group(terminal: io.StringIO) -> None:
    """A subscriber names its group as it likes; the owner looks at it."""
    table = lag._table([GroupLag(EVIL, "Empty", 0, 0, None, None, ())])
    Console(file=terminal, force_terminal=True, color_system=None, width=200).print(table)
    harmless(terminal.getvalue())


def test_an_error(terminal: io.StringIO) -> None:
    main._say(EVIL, EVIL, 1)
    harmless(terminal.getvalue())


def test_the_words_of_a_contract(terminal: io.StringIO, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = (contracts.EXAMPLES / "traffic.detector-counts.yaml").read_text()
    lines = [
        'about: "\\e]0;owned\\a"' if found.startswith("about:") else found for found in text.splitlines()
    ]
    file = tmp_path_factory.mktemp("contract") / "c.yaml"
    file.write_text("\n".join(lines))
    contract_cli.check(str(file))
    harmless(terminal.getvalue())


def test_names_are_printed_whole_on_a_narrow_screen(terminal: io.StringIO) -> None:
    """They are there to be copied."""
    name = "share.road.counts.of.all.detectors.of.the.district"
    part = PartitionLag(f"{name}.raw.v1", 0, 1_234_567, 7_654_321, 12, 3.0, 0, None)
    console = Console(file=terminal, force_terminal=True, color_system=None, width=80)
    lag._show(console, 1, [GroupLag(name, "Stable", 1, 12, 3.0, None, (part,))], False)
    assert terminal.getvalue().splitlines()[1].split()[:3] == [name, f"{name}.raw.v1", "0"]
