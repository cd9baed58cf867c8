"""The gate lets through what is not worse, and says why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.gate import Fresh, Known, Scores, judge, mae

GOOD = Scores(
    288, 6.5, artefact=6.4, seasonal_naive=8.3, known=Known(280, 6.4, 6.5), fresh=Fresh(100, 6.6, 6.6)
)


def test_a_good_candidate_passes_with_reasons() -> None:
    verdict = judge(GOOD)
    assert verdict.publish
    assert len(verdict.reasons) == 4
    assert all(reason.startswith("passed") for reason in verdict.reasons)


def test_the_first_release_has_no_champion() -> None:
    assert judge(replace(GOOD, known=None, fresh=None)).publish


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fresh": Fresh(100, 6.8, 6.6)}, "learner MAE 6.8000 > the champion on 100 newer labels"),
        ({"fresh": Fresh(100, math.nan, 6.6)}, "learner gives no finite error"),
        ({"learner": 8.5}, "learner MAE 8.5000 > seasonal-naive"),
        ({"known": Known(280, 6.7, 6.5)}, "artefact MAE 6.7000 > the champion"),  # damaged weights
        ({"artefact": math.nan}, "artefact gives no finite error"),
        ({"learner": math.inf}, "learner gives no finite error"),
        ({"seasonal_naive": 6.0}, "> seasonal-naive"),
        ({"count": 47}, "47 labels"),
        ({"count": 0, "learner": math.nan}, "0 labels"),
    ],
)
def test_a_worse_candidate_is_refused(changes: dict[str, Any], words: str) -> None:
    verdict = judge(replace(GOOD, **changes))
    assert not verdict.publish
    assert any(words in reason for reason in verdict.reasons if reason.startswith("refused"))


def test_a_rival_that_gives_no_number_beats_nobody() -> None:
    assert judge(replace(GOOD, known=Known(280, 6.4, math.nan))).publish


errors = st.floats(0.01, 1e6)


@given(errors, errors, errors, errors)
def test_published_means_not_worse_than_either(a: float, b: float, c: float, d: float) -> None:
    scores = Scores(288, a, b, c, Known(280, b, d), Fresh(100, a, d))
    verdict = judge(scores, tolerance=0.0)
    assert verdict.publish == (max(a, b) <= min(c, d))
    assert verdict == judge(scores, tolerance=0.0)


def test_a_few_newer_labels_do_not_decide() -> None:
    assert judge(replace(GOOD, fresh=Fresh(47, 9.0, 6.6))).publish
    assert not judge(replace(GOOD, fresh=Fresh(48, 9.0, 6.6))).publish


def test_a_champion_of_which_no_key_lives_stops_nobody() -> None:
    gone = replace(GOOD, known=Known(0, math.nan, math.nan), fresh=Fresh(0, math.nan, math.nan))
    assert judge(gone).publish
    assert not judge(replace(gone, artefact=8.5)).publish


def test_mean_absolute_error() -> None:
    assert mae(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == 1.5
    assert math.isnan(mae(np.array([1.0, math.nan]), np.array([2.0, 4.0])))
    assert math.isnan(mae(np.array([]), np.array([])))
