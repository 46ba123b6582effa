"""Reading run folders, comparing them, and the table: ranking, seeds, swept columns, what is out of the ranking."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_runs import FIVE_MODELS, Kind, write_run, write_study

from n2n_lightning.reporting.comparison import Comparison, compare_runs
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.reporting.summary import notes
from n2n_lightning.reporting.table import (
    columns,
    comparison_csv,
    comparison_markdown,
    print_comparison,
    terminal_table,
)


def comparison_of(root: Path) -> Comparison:
    return compare_runs(read_runs(root).runs)


def titles(comparison: Comparison) -> list[str]:
    return [column.title for column in columns(comparison)]


def cells(comparison: Comparison, title: str) -> list[str]:
    column = next(column for column in columns(comparison) if column.title == title)
    return [column.text(group) for group in comparison.groups]


def test_runs_are_ranked_by_their_best_psnr(tmp_path: Path) -> None:
    comparison = comparison_of(write_study(tmp_path))
    expected = sorted(FIVE_MODELS, key=lambda model: -FIVE_MODELS[model])
    assert [group.model for group in comparison.ranked] == expected
    assert cells(comparison, "#") == ["1", "2", "3", "4", "5"]
    assert cells(comparison, "best PSNR (dB)")[0] == "25.40"
    assert cells(comparison, "gain (dB)")[0] == "+4.30"
    assert cells(comparison, "parameters")[0] == "991,203"
    assert cells(comparison, "course report (dB)*")[:2] == ["25.55", "24.05"]


@pytest.mark.parametrize("status", ["dead", "failed", "interrupted"])
def test_what_is_not_done_stays_out_of_the_ranking(tmp_path: Path, status: str) -> None:
    write_run(tmp_path / "a", "nn_relu", 23.0)
    write_run(tmp_path / "b", "unet", 29.0, status=status, reason="the reason", epochs=7)
    comparison = comparison_of(tmp_path)
    assert [group.model for group in comparison.ranked] == ["nn_relu"]
    assert cells(comparison, "#") == ["1", "–"]
    text = cells(comparison, "status")[1]
    assert text.startswith(status) and "the reason" in text
    assert ("7/20" in text) == (status == "interrupted")


def test_seeds_become_mean_and_sd_and_no_column(tmp_path: Path) -> None:
    scores = [25.0, 25.3, 25.9]
    for seed, psnr in enumerate(scores):
        write_run(tmp_path / f"unet,seed={seed}", "unet", psnr, overrides={"seed": str(seed)} if seed else {})
    comparison = comparison_of(tmp_path)
    assert len(comparison.ranked) == 1 and comparison.swept == []
    assert comparison.ranked[0].mean("val/psnr") == pytest.approx(25.4)
    by_hand = ((0.4**2 + 0.1**2 + 0.5**2) / (3 - 1)) ** 0.5  # the deviations from 25.4
    assert comparison.ranked[0].sd("val/psnr") == pytest.approx(by_hand)
    assert cells(comparison, "best PSNR (dB)") == ["25.40 ± 0.46 (3)"]


def test_seeds_are_not_mixed_across_settings_or_studies(tmp_path: Path) -> None:
    for study in ("one", "two"):
        for seed in ("1", "2"):
            write_run(tmp_path / study / f"adam{seed}", overrides={"optimizer": "adam", "seed": seed})
            write_run(tmp_path / study / f"sgd{seed}", overrides={"optimizer": "sgd", "seed": seed})
    comparison = comparison_of(tmp_path)
    assert comparison.swept == ["study", "optimizer"]
    assert [len(group.runs) for group in comparison.ranked] == [2, 2, 2, 2]


def test_a_dead_seed_does_not_enter_the_mean(tmp_path: Path) -> None:
    write_run(tmp_path / "a", psnr=25.0, overrides={"seed": "1"})
    write_run(tmp_path / "b", psnr=6.0, overrides={"seed": "2"}, status="dead", reason="black")
    assert cells(comparison_of(tmp_path), "best PSNR (dB)") == ["25.00", "6.00"]


def test_swept_columns_are_those_that_differ(tmp_path: Path) -> None:
    shared = {"trainer.max_epochs": "20"}
    write_run(tmp_path / "a", psnr=25.0, overrides={**shared, "optimizer": "sgd"})
    write_run(tmp_path / "b", psnr=24.0, overrides=shared)  # its own optimizer, Adam, is found in its configuration
    write_run(tmp_path / "c", psnr=23.0, overrides={**shared, "model.depth": "3"})
    comparison = comparison_of(tmp_path)
    assert comparison.swept == ["model.depth", "optimizer"]
    assert cells(comparison, "optimizer") == ["sgd", "adam", "adam"]
    assert cells(comparison, "model.depth") == ["default", "default", "3"]


def test_one_value_written_in_two_ways_is_not_swept(tmp_path: Path) -> None:
    write_run(tmp_path / "a", overrides={"optimizer.lr": "1e-3", "optimizer.betas": "[0.9,0.99]", "scheduler": "none"})
    write_run(tmp_path / "b", "nn_relu", overrides={"optimizer.lr": "0.001", "optimizer.betas": "[0.9, 0.99]"})
    assert comparison_of(tmp_path).swept == []


def test_the_reports_number_stands_beside_its_own_optimizer_only(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "unet", 25.0, overrides={"optimizer": "adam"})
    write_run(tmp_path / "b", "unet", 24.0, overrides={"optimizer": "sgd"})
    assert cells(comparison_of(tmp_path), "course report (dB)*") == ["25.55", "–"]


@pytest.mark.parametrize(("own", "expected"), [(True, "25.55"), (False, "–")])
def test_whether_the_optimizer_is_the_models_own_is_taken_from_the_record(
    tmp_path: Path, own: bool, expected: str
) -> None:
    write_run(tmp_path / "a", "unet", 25.0, overrides={"optimizer.lr": "0.01"} if own else {}, own_optimizer=own)
    write_run(tmp_path / "b", "nn_relu", 24.0)  # an older record, which does not say it
    assert cells(comparison_of(tmp_path), "course report (dB)*") == [expected, "23.79"]


def test_without_clean_images_the_estimate_from_pairs_ranks_with_its_interval(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "nn_relu", 30.0, kind="pairs")
    write_run(tmp_path / "b", "unet", 31.2, kind="pairs")
    comparison = comparison_of(tmp_path)
    assert comparison.metric == "val/psnr_pairs"
    assert cells(comparison, "model") == ["U-Net", "NN + ReLU"]
    assert cells(comparison, "PSNR from noisy pairs (dB)") == ["31.20 [30.9, 31.6]", "30.00 [29.7, 30.4]"]
    assert cells(comparison, "noisy (dB)") == ["21.10", "21.10"]
    assert cells(comparison, "gain (dB)") == ["+10.10", "+8.90"]
    assert not {"SSIM", "course report (dB)*", "best PSNR (dB)"} & set(titles(comparison))
    assert "| 31.20 [30.9, 31.6] |" in comparison_markdown(comparison) and "bootstrap interval" in comparison_markdown(
        comparison
    )
    row = next(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [float(row[f"val/psnr_pairs{end}"]) for end in ("", "_low", "_high")] == pytest.approx([31.2, 30.9, 31.6])
    assert row["noisy_psnr_pairs"] == "21.1" and "noisy_psnr" not in row


def test_an_estimate_without_an_interval_stands_alone(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"val/psnr_pairs_low": None, "val/psnr_pairs_high": None}
    write_run(tmp_path / "a", psnr=31.2, kind="pairs", **unknown)
    assert cells(comparison_of(tmp_path), "PSNR from noisy pairs (dB)") == ["31.20"]


def test_seeds_of_pairs_have_their_mean_interval(tmp_path: Path) -> None:
    for seed, psnr in enumerate([31.0, 31.4]):
        write_run(tmp_path / str(seed), "unet", psnr, kind="pairs", overrides={"seed": str(seed)})
    assert cells(comparison_of(tmp_path), "PSNR from noisy pairs (dB)") == ["31.20 ± 0.28 (2) [30.9, 31.6]"]


def test_clean_images_win_over_pairs(tmp_path: Path) -> None:
    pairs: dict[str, Any] = {"val/psnr_pairs": 25.7, "noisy_psnr_pairs": 21.3}
    write_run(tmp_path / "a", psnr=25.0, **pairs)
    comparison = comparison_of(tmp_path)
    assert comparison.metric == "val/psnr"
    assert cells(comparison, "best PSNR (dB)") == ["25.00"] and cells(comparison, "gain (dB)") == ["+3.90"]


def test_single_noisy_images_rank_by_their_loss(tmp_path: Path) -> None:
    for name, loss in (("a", 0.5), ("b", 0.2)):
        write_run(tmp_path / name, name, kind="single", val_loss=[0.9, loss])
    comparison = comparison_of(tmp_path)
    assert comparison.metric == "val/loss"
    assert [group.model for group in comparison.ranked] == ["b", "a"]
    assert "gain (dB)" not in titles(comparison) and "best val/loss" in titles(comparison)


def test_single_noisy_images_of_known_noise_rank_by_sure(tmp_path: Path) -> None:
    for name, sure, loss in (("a", 30.5, 0.1), ("b", 31.25, 0.2)):
        scores: dict[str, Any] = {"monitor": "val/psnr_sure", "val/psnr_sure": sure, "noisy_psnr_sure": 20.25}
        write_run(tmp_path / name, name, kind="single", val_loss=[0.9, loss], **scores)
    comparison = comparison_of(tmp_path)
    assert comparison.metric == "val/psnr_sure"
    assert cells(comparison, "PSNR by SURE (dB)") == ["31.25", "30.50"]
    assert cells(comparison, "gain (dB)") == ["+11.00", "+10.25"]


@pytest.mark.parametrize(
    ("best", "other", "reason"),
    [
        ("clean", "pairs", "no clean images: val/psnr_pairs 31.20 dB"),
        ("clean", "single", "no clean images: val/loss 0.004"),
        ("pairs", "single", "no pairs of noisy images: val/loss 0.004"),
    ],
)
def test_runs_that_were_measured_otherwise_are_not_ranked(tmp_path: Path, best: Kind, other: Kind, reason: str) -> None:
    write_run(tmp_path / "a", "unet", 25.0, kind=best)
    write_run(tmp_path / "b", "unet", 31.2, kind=other, overrides={"data": "other"})
    comparison = comparison_of(tmp_path)
    assert cells(comparison, "#") == ["1", "–"]
    assert cells(comparison, "status") == ["done", f"done ({reason})"]
    (score,) = (column for column in columns(comparison) if column.key == comparison.metric)
    assert score.text(comparison.others[0]) == "–"  # not its score by another measure
    assert list(csv.DictReader(io.StringIO(comparison_csv(comparison))))[1]["reason"] == reason
    assert "25.55" not in comparison_markdown(comparison).split("\n| – |", 1)[1]


def test_unfinished_runs_show_what_they_have(tmp_path: Path) -> None:
    write_run(tmp_path / "a", psnr=31.2, kind="pairs", status="interrupted")
    assert cells(comparison_of(tmp_path), "PSNR from noisy pairs (dB)") == ["31.20 [30.9, 31.6]"]


def test_warnings_about_the_data_are_among_the_notes(tmp_path: Path) -> None:
    write_run(tmp_path / "a", kind="pairs", data_warnings=["frames are shifted: f1.png"])
    write_run(tmp_path / "b", kind="pairs", data_warnings=[])
    found = [note for note in notes(comparison_of(tmp_path)) if "shifted" in note]
    assert len(found) == 1 and "a: frames are shifted: f1.png" in found[0] and "b" not in found[0].partition(":")[0]


@pytest.mark.parametrize("text", ["", '{"model": "un', "[]", '{"model": "unet"}', "\xff"])
def test_a_broken_result_is_named_and_left_out(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(text, encoding="latin-1")
    found = read_runs(tmp_path)
    assert [run.name for run in found.runs] == ["good"]
    assert len(found.warnings) == 1 and "bad/result.json" in found.warnings[0]


def test_a_run_that_failed_before_it_began_is_listed(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "result.json").write_text('{"model": "unet", "status": "failed", "reason": "no data"}')
    comparison = comparison_of(tmp_path)
    assert cells(comparison, "status") == ["failed (no data)"]


def test_metrics_with_holes_and_a_cut_off_row_are_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.csv").write_text("epoch,train/loss,val/psnr\n1,0.5,\n2,nan,21\n2,0.3,22\n3,0.2,2x\n4,")
    history = read_runs(tmp_path).runs[0].history
    assert history == {"train/loss": {1: 0.5, 2: 0.3, 3: 0.2}, "val/psnr": {2: 22.0}}


def test_markdown_and_csv_carry_the_table(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_run(tmp_path / "dead", "nn_relu", 6.0, status="dead", reason="black | empty", overrides={"seed": "3"})
    comparison = comparison_of(tmp_path)
    lines = comparison_markdown(comparison).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}) == 1
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [row["model"] for row in rows][:2] == ["unet", "convtrans_relu"]
    assert float(rows[0]["val/psnr"]) == 25.4 and rows[0]["params"] == "991203"
    assert rows[-1]["rank"] == "" and rows[-1]["reason"] == "black | empty"


def test_the_terminal_table_fits_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, overrides={"optimizer": "sgd"})
    write_run(tmp_path / "adam", overrides={"optimizer": "adam"}, status="dead", reason="its images are black")
    text = terminal_table(comparison_of(tmp_path)).text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert "Convtrans + Sigmoid" in text and "23.40" in text
    print_comparison(comparison_of(tmp_path))
    assert "its images are black" in capsys.readouterr().out


def test_importing_results_loads_neither_matplotlib_nor_torch() -> None:
    modules = "n2n_lightning.reporting.comparison, n2n_lightning.report"
    code = f"import sys, {modules}; print({{'matplotlib', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
