"""What the progress bar shows: epochs counted from 1, and a score of every kind of data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from noisy_files import ALL, source
from small_runs import compose_config

from n2n_lightning.training import run
from n2n_lightning.training.callbacks import ProgressBar


@pytest.mark.parametrize(("current", "text"), [(0, "Epoch 1/20"), (19, "Epoch 20/20")])
def test_the_bar_counts_epochs_from_1(current: int, text: str):
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=20)
    assert bar._get_train_description(current).rstrip() == text


class Shown(pl.Callback):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.names |= set(trainer.progress_bar_metrics)


@pytest.mark.parametrize(
    ("kind", "score"), [("single", "val/psnr_sure"), ("burst", "val/psnr_pairs"), ("clean", "val/psnr")]
)
def test_the_bar_shows_a_score_of_every_kind_of_data(noisy_images: Path, tmp_path: Path, kind: str, score: str):
    words = ["model=convtrans_relu", "init_from=null", *source(kind, noisy_images), *ALL, "trainer.max_epochs=1"]
    config, shown, folder = compose_config(*words), Shown(), tmp_path / "run"
    run.train(config, folder, {"model": "convtrans_relu"}, lambda _: folder.mkdir(parents=True), [shown])
    assert score in shown.names and "val/loss" not in shown.names
