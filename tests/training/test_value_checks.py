"""Nets that end in ReLU or Sigmoid cannot give values below 0: ``train`` says so before it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from noisy_files import CROPS
from numbered_images import write
from small_runs import assert_refused, smooth_images

LINE = ("data=burst", "data.root=given", *CROPS, "trainer.max_epochs=1", "trainer.accelerator=cpu")
ENDS_AT_0 = ["nn_relu", "nn_sigmoid", "convtrans_relu", "convtrans_sigmoid"]


def write_frames(folder: Path, low: float, sigma: float = 0.03) -> None:
    """Write two noisy float frames of a scene from ``low`` to 1."""
    clean = smooth_images(1, 64, seed=2)[0].mean(0) / 255
    clean = (clean - clean.min()) / np.ptp(clean) * (1 - low) + low
    clean[:24], clean[:, :24] = low, low  # dark in the part of each stage
    for frame in range(2):
        noisy = clean + np.random.default_rng(frame).normal(0, sigma, clean.shape)
        write(folder / f"{frame}.tif", noisy.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("model", ENDS_AT_0)
def test_images_below_zero_are_refused(command: Command, tmp_path: Path, model: str):
    write_frames(tmp_path / "given", low=-0.5)
    ended = command(*LINE, f"model={model}", "data.cache_dir=given/cache", "hydra.run.dir=run")
    assert_refused(ended, tmp_path, "cannot give values below 0", "set model=unet", "offset")


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "warns"), [(0.1, True), (0.01, False)])
def test_noise_below_zero_is_warned_of(command: Command, tmp_path: Path, sigma: float, warns: bool):
    write_frames(tmp_path / "given", low=0.1, sigma=sigma)
    ended = command(*LINE, "model=convtrans_relu", "data.cache_dir=cache", "hydra.run.dir=run")
    assert ended.code == 0 and ("warning: the images have values down to -" in ended.err) == warns


def test_other_nets_give_values_below_zero(command: Command, tmp_path: Path):
    write_frames(tmp_path / "given", low=-0.5)
    ended = command(*LINE, "model=dncnn", "model.layers=3", "model.width=4", "hydra.run.dir=run")
    assert ended.code == 0 and "warning" not in ended.err
