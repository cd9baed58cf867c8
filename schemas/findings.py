"""Problems of a contract as text: where, what, and what to do. Inputs are never repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from schemas.text import Loc, line_of

if TYPE_CHECKING:
    from pydantic import ValidationError


class Problem(NamedTuple):
    path: Loc
    message: str
    remedy: str


def render(problems: list[Problem], lines: dict[Loc, int], name: str) -> tuple[str, str]:
    """All problems as one message with lines and paths, and the remedies in the same order."""
    said, remedies = [], []
    for problem in problems:
        path, line = line_of(problem.path, lines)
        said.append(f"{name}:{line}: {path}: {problem.message}")
        remedies.append(problem.remedy)
    return "\n".join(said), "\n  -> ".join(dict.fromkeys(remedies))


def explain(error: ValidationError, lines: dict[Loc, int], name: str) -> tuple[str, str]:
    """pydantic's findings in our words: where, what, and what to do. Inputs are never repeated."""
    problems = []
    for found in error.errors(include_input=False, include_url=False, include_context=False):
        kind, message = found["type"], found["msg"].removeprefix("Value error, ")
        remedy = "Correct that line."
        if kind == "extra_forbidden":
            message, remedy = "this key is not known here.", "Remove it or correct its spelling."
        elif kind == "missing":
            message, remedy = (
                "this key is missing.",
                "Add it; `sluice contract new` writes a complete file.",
            )
        problems.append(Problem(tuple(found["loc"]), message, remedy))
    return render(problems, lines, name)
