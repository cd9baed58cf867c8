"""YAML to plain values, with the line of every key, so that a message can say where.

YAML 1.2's core words only: `NO` stays a country, `12:30` and `2016-01-01` stay text, a key that stands twice
is refused. Nothing is ever constructed from a tag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from schemas.errors import ContractError

Loc = tuple[str | int, ...]
MAX_CHARACTERS = 200_000


class _Core(yaml.SafeLoader):
    """The safe loader with YAML 1.2's implicit types instead of 1.1's."""


_Core.yaml_implicit_resolvers = {}
_WORDS: list[tuple[str, str, str]] = [
    ("bool", r"^(?:true|false|True|False)$", "tfTF"),
    ("null", r"^(?:~|null|Null|)$", "~nN"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
]
for _tag, _pattern, _first in _WORDS:
    _Core.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, ""][: len(_first) + 1]
    )


def read(text: str, name: str) -> tuple[Any, dict[Loc, int]]:
    """Values and the line (from 1) of each path in them. Raises ContractError where it is not plain YAML."""
    if len(text) > MAX_CHARACTERS:
        raise ContractError(
            f"{name} is longer than {MAX_CHARACTERS:,} characters.", "A contract is about 40 lines."
        )
    try:
        loader = _Core(text)
        try:
            node = loader.get_single_node()
            lines: dict[Loc, int] = {}
            value = _build(loader, node, (), lines, name, 0)
        except (ValueError, OverflowError):
            # Python's own, which PyYAML lets through: `"\UFFFFFFFF"`, `%YAML 1.` and 5,000 digits
            raise ContractError(
                f"{name}:{loader.get_mark().line + 1}: not readable as YAML: a number or an escape out of range.",
                "Write the character itself, and fewer digits.",
            ) from None
        finally:
            loader.dispose()
    except RecursionError:
        raise ContractError(f"{name}: nested too deeply.", "A contract is about 40 lines.") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise ContractError(
            f"{name}:{line}: not readable as YAML: {problem.problem}.",
            "Check indentation, quotes and brackets around that line.",
        ) from None
    except yaml.YAMLError:
        raise ContractError(f"{name}: not readable as YAML.", "A contract is a UTF-8 text file.") from None
    return value, lines


def _build(loader: Any, node: Any, path: Loc, lines: dict[Loc, int], name: str, depth: int) -> Any:
    if node is None:
        return None
    lines.setdefault(path, node.start_mark.line + 1)
    if depth > 12 or len(lines) > 5_000:  # aliases could nest or multiply for ever
        raise ContractError(
            f"{name}:{lines[path]}: nested too deeply or too long.", "A contract is about 40 lines."
        )
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ContractError(f"{name}:{line}: a key must be a word.", "Write `word: value`.")
            key = key_node.value
            if key in built:
                raise ContractError(f"{name}:{line}: the key {key!r} stands twice.", "Keep one of the two.")
            lines[(*path, key)] = line
            built[key] = _build(loader, value_node, (*path, key), lines, name, depth + 1)
        return built
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, i), lines, name, depth + 1) for i, item in enumerate(node.value)]
    try:
        if node.tag == "tag:yaml.org,2002:int":
            return int(node.value)  # the loader takes 010 for 8, as YAML 1.1 did
        return loader.construct_object(node)
    except (
        ValueError,
        LookupError,
        AttributeError,
    ):  # thousands of digits; or `!!bool perhaps`, `!!timestamp x`
        raise ContractError(
            f"{name}:{lines[path]}: not a number, or not what its tag says.",
            "Write fewer digits, and no tags (`!!`).",
        ) from None


def line_of(loc: Sequence[str | int], lines: dict[Loc, int]) -> tuple[str, int]:
    """Dotted path and line of an error location; steps that the text lacks (union tags) are left out."""
    path: Loc = ()
    for step in loc:
        if (*path, step) in lines:
            path = (*path, step)
    missing = [str(s) for s in loc if s not in path][-1:] if len(path) < len(loc) else []
    return ".".join([*map(str, path), *missing]) or "contract", lines.get(path, 1)
