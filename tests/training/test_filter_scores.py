"""What is said of filters beside a net, read from a run's record."""

from __future__ import annotations

from typing import Any

import pytest

from n2n_lightning.filters import FILTERS
from n2n_lightning.training.filter_scores import TITLES, FilterScores, advice

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


@pytest.mark.parametrize(
    ("minutes", "start", "named", "not_named"),
    [
        (2.0, "starting from weights/general", ["minutes="], ["max_epochs", "init_from"]),
        (2.0, "starting from random weights", ["minutes=", "init_from="], ["max_epochs"]),
        (None, "starting from weights/general", ["trainer.max_epochs="], ["minutes", "init_from"]),
        (None, None, ["trainer.max_epochs=", "init_from="], ["minutes"]),  # early versions recorded no start
    ],
)
def test_advice_is_what_the_run_has_not_done(
    minutes: float | None, start: str | None, named: list[str], not_named: list[str]
):
    text = advice([{"config": {"minutes": minutes}, "start": start}])
    assert all(word in text for word in named) and not any(word in text for word in not_named)


def test_advice_on_several_runs_serves_each():
    config = {"config": {"minutes": 5}, "start": "starting from weights/general"}
    text = advice([config, config, {"config": {"minutes": None}, "start": "starting from random weights"}])
    assert all(text.count(word) == 1 for word in ("minutes=", "trainer.max_epochs=", "init_from="))


def test_no_weights_are_advised_that_do_not_fit_the_channels():
    record = {"config": {"minutes": 5}, "start": "starting from random weights", "image_shape": [2, 64, 64]}
    assert "init_from" not in advice([record]) and "predict auto" in advice([record])
    assert "init_from" in advice([record | {"image_shape": [1, 64, 64]}])
