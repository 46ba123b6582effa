"""What is said of filters beside a net, read from a run's record."""

from __future__ import annotations

from typing import Any

import pytest

from n2n_lightning.filters import FILTERS
from n2n_lightning.training.filter_scores import TITLES, FilterScores

FOUND = {
    "median": {"strength": 3, "psnr_pairs": 33.04},
    "gaussian": {"strength": 1.0, "psnr_pairs": 33.9},
    "non_local_means": {"strength": 0.55, "psnr_pairs": 35.1},
}
RECORD = {"monitor": "val/psnr_pairs", "val/psnr_pairs": 36.03, "filters": FOUND}


def test_every_filter_has_a_title():
    assert TITLES.keys() == {name for name, one in FILTERS.items() if not one.slow}  # runs leave slow ones out


def test_filters_are_named_best_first():
    scores = FilterScores.read(RECORD)
    assert scores is not None and not scores.net_loses
    assert scores.text == "non-local means 35.1, Gaussian blur 33.9, median 33.0 dB"


def test_a_net_below_the_best_filter_loses():
    scores = FilterScores.read(RECORD | {"val/psnr_pairs": 33.97})
    assert scores is not None and scores.net_loses
    assert scores.difference == "non-local means is 1.13 dB better"


def test_on_a_part_the_net_has_the_score_of_that_part():
    scores = FilterScores.read(RECORD | {"filters": FOUND | {"net": {"psnr_pairs": 34.5}}})
    assert scores is not None and scores.net == 34.5 and scores.net_loses
    assert "part" in scores.text and "net 34.5" in scores.text


@pytest.mark.parametrize(
    "changes",
    [{"filters": None}, {"filters": {}}, {"filters": {"median": 3}}, {"monitor": "val/loss"}, {"monitor": None}],
)
def test_other_records_have_no_filters(changes: dict[str, Any]):
    assert FilterScores.read(RECORD | changes) is None
