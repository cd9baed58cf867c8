"""The kept corpus, without atheris: every input that was worth keeping still meets its target's oracles."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, kept, load

LARGEST = 200_000  # bytes of all corpora, as the repository has room for


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_gets_past_its_oracles(name: str) -> None:
    module, files = load(name), kept(name)
    assert len(files) >= 4
    for file in files:
        try:
            module.run(file.read_bytes())
        except BaseException as problem:
            raise AssertionError(f"{name}: {file.name}") from problem


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_target_itself_begins_with_is_in_the_corpus(name: str) -> None:
    """By name: another release of ONNX or zlib may write the same thing in other bytes."""
    seeds = {f"seed-{word.replace(' ', '-')}" for word, _ in load(name).seeds()}
    assert {file.name for file in kept(name) if file.name.startswith("seed-")} == seeds


def test_the_corpus_stays_small() -> None:
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < LARGEST
