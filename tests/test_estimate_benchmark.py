"""``benchmarks.estimate``: the estimate keeps to the truth without faults, and leaves it with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimate
from benchmarks.estimate_denoisers import blur
from benchmarks.estimate_faults import CONTROLS, FAULTS, SIGMA, VAL_PX, photo

BOUND_DB = 0.5  # of chance, on 65,536 pixels


def filter_score(fault: str, frames: int) -> estimate.Score:
    recording = FAULTS[fault](photo("camera"), frames, np.random.default_rng(3))
    return estimate.score(blur(1.0), recording.cut(slice(VAL_PX), slice(-VAL_PX, None)))


@pytest.mark.parametrize("frames", estimate.FRAMES)
@pytest.mark.parametrize("fault", CONTROLS)
def test_controls_do_not_move_the_estimate(fault: str, frames: int):
    assert abs(filter_score(fault, frames).error) < BOUND_DB


@pytest.mark.parametrize("frames", estimate.FRAMES)
def test_a_fixed_pattern_counts_as_error_where_a_filter_removes_it(frames: int):
    """By hand: MSE + shared variance (1 - 2 w), where w = 1 / (2 pi) is the filter's weight of the pixel itself."""
    mse = 10 ** (-filter_score("none", frames).true / 10)
    moved = mse + 0.3 * SIGMA**2 * (1 - 1 / np.pi)
    found = filter_score("fixed pattern, 30 % of the variance", frames).error
    assert found == pytest.approx(-10 * np.log10(moved / mse), abs=BOUND_DB)


@pytest.mark.parametrize("frames", estimate.FRAMES)
def test_a_difference_in_level_counts_as_error_of_a_filter(frames: int):
    """By hand, with d the difference: d^2 / 2 for a pair; for six frames d times d / 2 of the two targets."""
    mse, d = 10 ** (-filter_score("none", frames).true / 10), 2 * SIGMA
    found = filter_score("level flickers by 2 sd of the noise", frames).error
    assert found == pytest.approx(-10 * np.log10((mse + d**2 / 2) / mse), abs=BOUND_DB)


@pytest.mark.slow
def test_the_tiny_version_writes_both_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    few = {name: FAULTS[name] for name in ("none", "every second frame is a copy")}
    effort = estimate.TINY._replace(photos=("camera",), steps=2, draws=2)
    monkeypatch.setattr(estimate, "TINY", effort)
    monkeypatch.setattr(estimate, "FAULTS", few)
    estimate.main(["--tiny"])
    found = json.loads(Path("outputs/benchmarks/estimate.json").read_text())
    control, copy = found["faults"]
    assert control["2"]["doctor"] == control["6"]["train"] == []
    assert copy["2"]["doctor"] == ["copy"] and copy["2"]["train"] == ["refused"]
    assert abs(control["6"]["filter"]["error"]) < BOUND_DB < 5 < -copy["2"]["filter"]["error"]
    assert len(found["spread"]) == 16
    assert "every second frame is a copy" in capsys.readouterr().out
