"""Imports go one way (docs/architecture.md), and light parts stay light: read from the source, nothing is imported."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("schemas", "producers", "streams", "trainers", "sluice")
# part -> what of ours it may import besides itself; the first that fits a module's name counts
LAYERS: dict[str, tuple[str, ...]] = {
    "schemas": (),
    "streams.privacy": ("schemas",),
    "streams.sharing": ("schemas", "streams.privacy"),
    "streams.kafka": ("schemas",),
    "streams.agents": ("schemas", "streams"),
    "producers": ("schemas", "streams.kafka"),
    "trainers": ("schemas", "streams.kafka"),
    "sluice": OURS,
}
NEVER = {
    "schemas": {"confluent_kafka", "faust", "mode", "torch"},
    "streams.privacy": {"confluent_kafka", "faust", "mode", "torch"},
    "streams.sharing": {"confluent_kafka", "faust", "mode", "torch"},
    "streams.kafka": {"faust", "mode", "torch"},
    "streams.agents": {"torch"},
    "producers": {"torch", "faust", "mode"},
    "trainers": {"faust", "mode"},
}
COMMAND_LINE = {"typer", "click", "rich"}
IMPORT_NAMES = {
    "pyyaml": "yaml",
    "pydantic-settings": "pydantic_settings",
    "confluent-kafka": "confluent_kafka",
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of ours by name."""
    files = [file for part in OURS for file in (ROOT / part).rglob("*.py")]
    return {
        ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): parse(f) for f in files
    }


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def imported(tree: ast.AST, at_load: bool = False) -> Iterator[str]:
    """Dotted names that `tree` imports; `at_load` leaves out functions and TYPE_CHECKING blocks."""
    for node in ast.iter_child_nodes(tree):
        if at_load and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node, at_load)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def module_of(name: str) -> str | None:
    """The module of ours that `package.thing` means; None for others' packages."""
    return next((n for n in (name, name.rpartition(".")[0]) if n in modules()), None)


def foreign(names: set[str]) -> set[str]:
    """Top-level packages that are neither ours nor Python's."""
    return {name.partition(".")[0] for name in names} - set(OURS) - sys.stdlib_module_names


def base_packages() -> set[str]:
    """What a subscriber has: the dependencies without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=~!\[; ]", line)[0].lower() for line in project["dependencies"]}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize("part", LAYERS)
def test_imports_go_one_way(part: str) -> None:
    allowed = (part, *LAYERS[part])
    for module, tree in modules().items():
        if within(module, part):
            for name in imported(tree):
                ours = name.partition(".")[0] in OURS
                assert not ours or any(within(name, other) for other in allowed), f"{module} imports {name}"


@pytest.mark.parametrize("part", NEVER)
def test_no_part_imports_what_it_must_not_need(part: str) -> None:
    for module, tree in modules().items():
        if within(module, part):
            assert not foreign(set(imported(tree))) & NEVER[part], module


def test_a_command_loads_nothing_heavy_before_it_is_called() -> None:
    for module, tree in modules().items():
        if within(module, "sluice.cli"):
            names = set(imported(tree, at_load=True))
            assert foreign(names) <= COMMAND_LINE, module
            ours = {name for name in names if name.partition(".")[0] in OURS}
            assert all(within(name, "schemas.errors") or within(name, "sluice.cli") for name in ours), module


def test_a_subscriber_needs_the_base_install_only() -> None:
    """Its own imports, and those that loading its modules brings in, to the end."""
    start = "trainers.subscriber"
    if start not in modules():
        pytest.skip("not written yet")
    names, open_, seen = set(imported(modules()[start])), [start], set[str]()
    while open_:
        module = open_.pop()
        seen.add(module)
        found = set(imported(modules()[module], at_load=module != start))
        names |= found
        packages = {".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)}
        open_ += [m for m in {*map(module_of, found), *packages} if m is not None and m not in seen]
    assert foreign(names) <= base_packages(), f"by way of {sorted(seen)}"
