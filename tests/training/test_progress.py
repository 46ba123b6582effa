"""What changes until the end of a run: the ramp of the learning rate, and losses that depend on the progress."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import assert_same_weights, compose_config, read_json, timeless_table, tiny_overrides

from n2n_lightning.models.module import rampdown, warmup_cosine
from n2n_lightning.system import errors
from n2n_lightning.training import run

FAST = ("model=convtrans_relu", "trainer.max_epochs=4", "trainer.limit_train_batches=5")  # 20 steps


class Watch(pl.Callback):
    """Collect the learning rate and progress of each step, and the final rate; end the run after ``most`` steps."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.rates, self.progress = most, [], []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.progress.append(pl_module.progress)
        if len(self.progress) == self.most:
            raise RuntimeError("killed")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train_watched(folder: Path, root: Path, watch: Watch, *overrides: str) -> Path:
    config = compose_config(*tiny_overrides(root), *FAST, *overrides)
    labels = {"model": "convtrans_relu", "overrides": {}}
    run.train(config, folder, labels, lambda _: folder.mkdir(parents=True, exist_ok=True), [watch])
    return folder


# The rate


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "start"), [(0.3, 14), (0.5, 10), (1, 0)])
def test_the_rate_is_full_and_then_falls_to_zero_as_in_the_papers_code(
    course_data: Path, tmp_path: Path, fraction: float, start: int
):
    """The official code: for t from 0 to 1 over the last part, (0.5 + cos(pi t) / 2)^2."""
    watch = Watch()
    train_watched(tmp_path / "run", course_data, watch, "scheduler=rampdown", f"scheduler.fraction={fraction}")
    falls = [(0.5 + 0.5 * math.cos(math.pi * (step - start) / (20 - start))) ** 2 for step in range(start, 20)]
    assert watch.rates == pytest.approx([0.1] * start + [0.1 * fall for fall in falls] + [0], abs=1e-9)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_a_ramp_of_no_length_is_refused(fraction: float):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    with pytest.raises(ValueError, match=r"fraction must be above 0, at most 1, got .*; set scheduler\.fraction=0\.3"):
        rampdown(optimizer, 10, fraction)


def test_the_rate_rises_and_then_falls_as_a_cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    scheduler, rates = warmup_cosine(optimizer, 10, warmup_steps=4), []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    cosine = [0.05 + 0.05 * math.cos(math.pi * step / 10) for step in range(11)]
    assert rates == pytest.approx([cosine[0] / 4, cosine[1] / 2, 3 * cosine[2] / 4, *cosine[3:]], abs=1e-9)
    with pytest.raises(ValueError, match=r"warmup_steps must be 1 or more, got 0; set scheduler\.warmup_steps=20"):
        warmup_cosine(optimizer, 10, warmup_steps=0)


# The loss


def test_l0_goes_from_the_runs_start_to_its_end(course_data: Path, tmp_path: Path):
    watch = Watch()
    folder = train_watched(tmp_path / "run", course_data, watch, "loss=l0")
    assert watch.progress == pytest.approx([step / 20 for step in range(20)])
    assert all(math.isfinite(float(row["train/loss"])) for row in timeless_table(folder))


def test_each_step_has_the_loss_of_its_progress(course_data: Path, tmp_path: Path):
    """The weights hardly change, so that the loss can be computed again."""

    class Compare(Watch):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            self.progress.append(pl_module.progress)
            with torch.no_grad():
                off = (pl_module(batch.source) - batch.target).abs().double()
            expected = (off + 1e-8).pow(2 - 2 * (len(self.progress) - 1) / 20).mean().item()
            assert outputs["loss"].item() == pytest.approx(expected, rel=1e-4)

    watch = Compare()
    train_watched(tmp_path / "run", course_data, watch, "loss=l0", "optimizer.lr=1e-30")
    assert len(watch.progress) == 20


@pytest.mark.slow
@pytest.mark.parametrize("option", ["loss=l0", "scheduler=rampdown"])
def test_an_interrupted_run_resumes_at_the_same_progress(course_data: Path, tmp_path: Path, option: str):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    once, rest = Watch(), Watch()
    train_watched(whole, course_data, once, option)
    with pytest.raises(RuntimeError, match="killed"):
        train_watched(parts, course_data, Watch(12), option)
    assert read_json(parts / "result.json")["epochs"] == 2
    train_watched(parts, course_data, rest, option)
    assert rest.progress == once.progress[-len(rest.progress) :] and rest.rates == once.rates[-len(rest.rates) :]
    assert 10 <= len(rest.progress) < 20
    assert timeless_table(parts) == timeless_table(whole)
    assert_same_weights(parts / "checkpoints/last.ckpt", whole / "checkpoints/last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["loss=l0", "scheduler=rampdown"])
def test_a_run_whose_rate_or_loss_has_reached_its_end_cannot_be_extended(
    course_data: Path, tmp_path: Path, option: str
):
    folder = train_watched(tmp_path / "run", course_data, Watch(), option)
    with pytest.raises(errors.InputError, match=r"another configuration: trainer\.max_epochs"):
        train_watched(folder, course_data, Watch(), option, "trainer.max_epochs=5")
