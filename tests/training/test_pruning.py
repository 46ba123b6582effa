"""A run that is hopeless ends early; only a search counts it as finished."""

from __future__ import annotations

from pathlib import Path

from pytest import approx
from small_runs import assert_same_weights, compose_config, read_json, read_table, tiny_overrides

from n2n_lightning.reporting.sweep import Outcome, best_text, job_value
from n2n_lightning.training.pruning import Pruning
from n2n_lightning.training.run import train


class Judge:
    """Call a run hopeless from an epoch on, and keep what was reported."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.reports: list[tuple[int, float]] = []

    def __call__(self, epoch: int, value: float) -> bool:
        self.reports.append((epoch, value))
        return epoch >= self.last


def train_pruned(folder: Path, course_data: Path, judge: Judge | None, *overrides: str) -> bool:
    config = compose_config(*tiny_overrides(course_data), "model=convtrans_relu", "trainer.max_epochs=4", *overrides)
    folder.mkdir(exist_ok=True)
    pruning = None if judge is None else Pruning(judge)
    return train(config, folder, {"model": "convtrans_relu", "overrides": {}}, pruning=pruning)


def test_a_hopeless_run_ends_early_and_is_trained_to_its_end_later(
    course_data: Path, four_epochs: Path, tmp_path: Path
):
    judge, folder = Judge(last=2), tmp_path / "run"
    assert train_pruned(folder, course_data, judge)
    record = read_json(folder / "result.json")
    assert record["status"] == "pruned" and record["epochs"] == 2 and "epoch 2/4" in record["reason"]
    assert [epoch for epoch, _ in judge.reports] == [1, 2]
    assert [value for _, value in judge.reports] == approx([float(row["val/psnr"]) for row in read_table(folder)])
    assert best_text(folder)[0] == "pruned"
    for state in ("pruned", "skipped"):
        assert job_value(Outcome(folder, state, 0, "")) == "pruned"

    assert not train_pruned(folder, course_data, judge)  # the search skips it
    assert len(judge.reports) == 2
    assert train_pruned(folder, course_data, None)  # any other command goes on
    assert read_json(folder / "result.json")["status"] == "done"
    assert_same_weights(folder / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")


def test_a_run_in_its_last_epoch_or_below_min_epochs_is_not_pruned(course_data: Path, tmp_path: Path):
    judge = Judge(last=4)
    assert train_pruned(tmp_path / "last", course_data, judge)
    assert len(judge.reports) == 4 and read_json(tmp_path / "last/result.json")["status"] == "done"
    assert train_pruned(tmp_path / "least", course_data, Judge(last=1), "+trainer.min_epochs=3")
    record = read_json(tmp_path / "least/result.json")
    assert record["status"] == "pruned" and record["epochs"] == 3
