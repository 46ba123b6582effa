"""The report's claims: each verdict in every direction, on made-up runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_runs import FIVE_MODELS, Kind, falling, rising, write_run, write_study

from n2n_lightning.reporting.claims import VERDICTS, Judgement, judge_study_claims
from n2n_lightning.reporting.comparison import compare_runs
from n2n_lightning.reporting.runs import read_runs

FIRST, TRAINING, VALIDATION, RELU, BEST = range(5)
HOLDS, FAILS, UNKNOWN = (VERDICTS[holds][0] for holds in (True, False, None))


def judged(root: Path) -> Judgement:
    judgement = judge_study_claims(compare_runs(read_runs(root).runs))
    assert judgement is not None
    return judgement


def verdicts(root: Path) -> list[str]:
    return [claim.verdict for claim in judged(root).claims]


def scores(**changes: float) -> Mapping[str, float]:
    return FIVE_MODELS | changes


def test_all_hold_where_the_runs_are_as_in_the_report(tmp_path: Path) -> None:
    assert verdicts(write_study(tmp_path)) == [HOLDS] * 5
    assert judged(tmp_path).tally == "5 hold"


def test_a_late_unet_is_not_ahead_from_the_first_epoch(tmp_path: Path) -> None:
    write_study(tmp_path, {model: psnr for model, psnr in FIVE_MODELS.items() if model != "unet"})
    write_run(tmp_path / "unet", "unet", 25.4, curve=rising(25.4, 20, first=15.0))
    claim = judged(tmp_path).claims[FIRST]
    assert claim.verdict == FAILS
    assert "−5.80 dB after epoch 1" in claim.checks[0].numbers


@pytest.mark.parametrize(("claim", "loss"), [(TRAINING, "train_loss"), (VALIDATION, "val_loss")])
def test_a_loss_that_keeps_falling_is_not_flat(tmp_path: Path, claim: int, loss: str) -> None:
    steady = [0.04 - 0.001 * epoch for epoch in range(20)]
    changes: dict[str, Any] = {loss: steady}
    write_study(tmp_path, **changes)
    found = verdicts(tmp_path)
    assert found[claim] == FAILS and found.count(FAILS) == 1
    left = {TRAINING: "63.2%", VALIDATION: "78.9%"}[claim]  # 12 of 19 steps are left after epoch 8, 15 after epoch 5
    assert left in judged(tmp_path).claims[claim].checks[0].numbers


@pytest.mark.parametrize(
    ("epochs", "expected"), [(9, [UNKNOWN, UNKNOWN]), (10, [UNKNOWN, HOLDS]), (16, [HOLDS, HOLDS])]
)
def test_short_runs_leave_flatness_open(tmp_path: Path, epochs: int, expected: list[str]) -> None:
    losses: dict[str, Any] = {"train_loss": falling(0.01, epochs, speed=2), "val_loss": falling(0.004, epochs, speed=2)}
    write_study(tmp_path, epochs=epochs, **losses)
    assert verdicts(tmp_path)[TRAINING : VALIDATION + 1] == expected


def test_a_loss_that_does_not_fall_leaves_flatness_open(tmp_path: Path) -> None:
    write_study(tmp_path, val_loss=[0.01 + 0.001 * epoch for epoch in range(20)])
    assert verdicts(tmp_path)[VALIDATION] == UNKNOWN


def test_sigmoid_above_relu_is_said(tmp_path: Path) -> None:
    found = verdicts(write_study(tmp_path, scores(nn_sigmoid=24.0)))
    assert found[RELU] == FAILS and found[BEST] == HOLDS


def test_another_best_sequential_model_is_said(tmp_path: Path) -> None:
    found = verdicts(write_study(tmp_path, scores(nn_relu=24.2)))
    assert found[BEST] == FAILS and found[RELU] == HOLDS


def test_an_unfinished_sweep_is_open_but_a_counterexample_settles_it(tmp_path: Path) -> None:
    write_run(tmp_path / "unet", "unet", 25.4)
    write_run(tmp_path / "nn_relu", "nn_relu", 23.8)
    write_run(tmp_path / "convtrans_relu", "convtrans_relu", 23.1, status="interrupted", epochs=4)
    found = judged(tmp_path)
    assert [claim.verdict for claim in found.claims] == [UNKNOWN] * 5 and not found.settled
    assert any("epoch 4/20" in check.numbers for check in found.claims[BEST].checks)
    write_run(tmp_path / "nn_sigmoid", "nn_sigmoid", 24.5)
    assert verdicts(tmp_path) == [UNKNOWN, UNKNOWN, UNKNOWN, FAILS, UNKNOWN]


def test_a_dead_run_is_named_as_the_reason(tmp_path: Path) -> None:
    write_study(tmp_path, {model: psnr for model, psnr in FIVE_MODELS.items() if model != "nn_relu"})
    write_run(tmp_path / "nn_relu", "nn_relu", 6.4, status="dead", reason="a black image")
    claim = judged(tmp_path).claims[RELU]
    assert claim.verdict == UNKNOWN and "a black image" in claim.checks[0].numbers


def test_swept_optimizers_are_judged_on_the_models_own(tmp_path: Path) -> None:
    for model, psnr in FIVE_MODELS.items():
        own = "adam" if model == "unet" else "sgd"
        other = "sgd" if model == "unet" else "adam"
        write_run(tmp_path / f"{model},own", model, psnr, overrides={"optimizer": own})
        score = 24.9 if model == "nn_sigmoid" else 21.5  # would turn two verdicts if it were counted
        write_run(tmp_path / f"{model},other", model, score, overrides={"optimizer": other})
    judgement = judged(tmp_path)
    assert [claim.verdict for claim in judgement.claims] == [HOLDS] * 5
    assert "adam for U-Net; sgd for" in judgement.basis


def test_other_sweeps_are_judged_within_one_setting(tmp_path: Path) -> None:
    write_study(tmp_path / "l2")
    write_run(tmp_path / "l2" / "l1", "nn_sigmoid", 24.9, overrides={"loss": "l1"})
    assert verdicts(tmp_path) == [HOLDS] * 5


def test_seeds_count_by_their_mean_and_a_lead_within_their_spread_is_marked(tmp_path: Path) -> None:
    write_study(tmp_path, {model: psnr for model, psnr in FIVE_MODELS.items() if not model.startswith("nn_")})
    for seed, (relu, sigmoid) in enumerate([(23.0, 23.4), (24.0, 23.4), (23.6, 23.6)]):
        for model, psnr in (("nn_relu", relu), ("nn_sigmoid", sigmoid)):
            write_run(tmp_path / f"{model}{seed}", model, psnr, overrides={"seed": str(seed)})
    check = judged(tmp_path).claims[RELU].checks[0]
    assert check.holds and check.numbers.startswith("23.53 against 23.47 dB: +0.07 dB")
    assert "may be chance" in check.numbers


def test_runs_of_other_models_make_no_claim(tmp_path: Path) -> None:
    write_run(tmp_path / "drunet", "drunet", 26.0)
    assert judge_study_claims(compare_runs(read_runs(tmp_path).runs)) is None


@pytest.mark.parametrize("kind", ["pairs", "single"])
def test_runs_without_clean_images_make_no_claim(tmp_path: Path, kind: Kind) -> None:
    write_study(tmp_path, kind=kind)
    assert judge_study_claims(compare_runs(read_runs(tmp_path).runs)) is None
    write_run(tmp_path / "drunet", "drunet", 26.0)  # now there is a PSNR, but not of the report's models
    assert judge_study_claims(compare_runs(read_runs(tmp_path).runs)) is None


def test_a_model_without_clean_images_leaves_its_claims_open(tmp_path: Path) -> None:
    write_study(tmp_path, {model: psnr for model, psnr in FIVE_MODELS.items() if model != "nn_relu"})
    write_run(tmp_path / "nn_relu", "nn_relu", 20.0, kind="pairs")
    claim = judged(tmp_path).claims[RELU]
    assert claim.verdict == UNKNOWN and "no clean images" in claim.checks[0].numbers
