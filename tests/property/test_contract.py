"""Whatever is written into a contract, it loads or it is refused with a message: nothing else ever happens."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import EXAMPLES, Contract, parse
from schemas.errors import ContractError

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
WORDS = [match.span() for match in re.finditer(r"[\w%./:-]+", COUNTS)]
ODD = st.sampled_from(
    ["", "null", "true", "-1", "0", "1e300", "1e-300", "NaN", "[]", "{}", "[a]", "{a: b}", "*a", "&a", "!x", "|",
     "public", "{count: {min: 0, max: 9}}", "day", "1ms", "vehicles", "detector", "interval_start", "9" * 30,
     "\n", "\t", "'"]
)  # fmt: skip


def judged(text: str) -> Contract | ContractError:
    try:
        return parse(text, EXAMPLES)
    except ContractError as refused:
        return refused


@given(st.lists(st.tuples(st.integers(0, len(WORDS) - 1), ODD | st.text(max_size=6)), min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_any_words_in_place_of_others(changes: list[tuple[int, str]]) -> None:
    text = COUNTS
    for at, word in sorted(dict(changes).items(), reverse=True):
        start, end = WORDS[at]
        text = text[:start] + word + text[end:]
    found = judged(text)
    if isinstance(found, ContractError):
        assert found.message
        assert found.remedy
    else:
        assert found.shared_schema["sluice"] == found.public()
        assert found.privacy.epsilon > 0 or found.mode == "open"
        assert all(rule.nano_epsilon >= 1 for rule in found.privacy.private_fields.values())


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text(text: str) -> None:
    assert isinstance(judged(text), ContractError)
