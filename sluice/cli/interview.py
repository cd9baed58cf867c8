"""Answers of `sluice contract new`: from a flag, else from the user; each is checked when it is given."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from schemas.errors import ConfigurationError
from sluice.cli import screen

if TYPE_CHECKING:
    from sluice.contracts.guess import Column

Check = Callable[[str], object]
MOST_RECORDS = 1_000_000  # schemas.privacy: the largest contribution.max
_BOUNDS = re.compile(r"\s*(\S.*?:[-+.\d]+:[-+.\d]+(?::[-+.\d]+)?)(?=\s|$)")


class Asker:
    """An answer from a flag, else from the user; without input, a missing one names its flag.

    `check` raises ConfigurationError for an answer that will not do: a typed one is asked for again, one from
    a flag ends the command.
    """

    def __init__(self, no_input: bool) -> None:
        self._no_input = no_input

    def __call__(self, given: str | None, flag: str, question: str, default: str | None, check: Check) -> str:
        if given is None and self._no_input:
            if default is None:
                raise ConfigurationError(
                    f"{flag} is needed.", "Give it, or leave --no-input out and be asked."
                )
            given = default
        if given is not None:
            check(given)
            return given
        while True:
            answer = str(typer.prompt(question, default=default)).strip()
            try:
                check(answer)
            except ConfigurationError as problem:
                typer.echo(screen.shown(f"   {problem.message} {problem.remedy}"))
            else:
                return answer


class Checks:
    """What an answer must be, for the columns of one source."""

    def __init__(self, columns: list[Column]) -> None:
        self._columns = columns

    def column(self, answer: str) -> None:
        from sluice.contracts import draft

        if answer != draft.CONSTANT:
            draft.find(self._columns, answer)

    def time(self, answer: str) -> None:
        from sluice.contracts import draft

        draft.times(draft.find(self._columns, answer))

    def private(self, answer: str) -> None:
        for one in split(answer):
            self.bounds(one)

    def bounds(self, text: str) -> None:
        from sluice.contracts import draft

        bounds = draft.Bounds.of(text)
        column = draft.find(self._columns, bounds.column)
        draft.numbers(column)
        if bounds.low >= bounds.high:
            raise ConfigurationError(
                f"The bounds of {column.title!r} are no range.", "MIN is smaller than MAX."
            )


def split(answer: str) -> list[str]:
    """`a:0:1 b c:0:9:1` is two: blanks inside the name of a column stay. What is left over comes last."""
    found, at = [], 0
    while match := _BOUNDS.match(answer, at):
        found.append(match[1])
        at = match.end()
    rest = answer[at:].strip()
    return [*found, rest] if rest or not found else found


def zone(answer: str) -> None:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(answer)
    except (ValueError, KeyError, OSError):
        raise ConfigurationError(
            "There is no such time zone.", "Write an IANA name such as UTC or America/Los_Angeles."
        ) from None


def word(answer: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug(answer)):
        raise ConfigurationError("That is no plain word.", "Write one of letters a to z, e.g. vehicle.")


def slug(answer: str) -> str:
    return "-".join(answer.lower().split())


def number(answer: str) -> None:
    if not (re.fullmatch(r"[0-9]{1,9}", answer) and 1 <= int(answer) <= MOST_RECORDS):
        raise ConfigurationError("That is no whole number of records.", f"Write 1 to {MOST_RECORDS}.")


def said(answer: str) -> None:
    if not answer.strip():
        raise ConfigurationError("Nothing was said.", "Write a few words.")
