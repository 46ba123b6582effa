"""Evaluation on each source of image files, and the range that a checkpoint keeps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import Command, Trained
from noisy_files import CROPS, MONITORS, SHORT, source
from numbered_images import write
from PIL import Image
from small_runs import evaluate_main, read_json, smooth_images

from n2n_lightning.models.checkpoint import load_denoiser


def write_deep(folder: Path, peak: float) -> Path:
    """Write a burst of two frames in 16 bits whose values end well below ``peak``."""
    rng = np.random.default_rng(0)
    clean = smooth_images(1, 64, seed=2)[0].transpose(1, 2, 0) / 255 * 0.8 * peak
    for frame in range(2):
        noisy = np.clip(clean + rng.normal(0, 0.05 * peak, clean.shape), 0, 0.95 * peak)
        write(folder / f"{frame}.tif", np.rint(noisy).astype(np.uint16))
    return folder


@pytest.mark.slow
def test_the_checkpoint_keeps_the_range_and_evaluation_takes_it(command: Command, tmp_path: Path):
    write_deep(tmp_path / "deep", 4095)
    options = ("data=burst", *CROPS, "data.cache_dir=cache")
    assert command(*SHORT, *options, "data.root=deep", "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    assert read_json(tmp_path / "run/result.json")["data"]["peak"] == 4095
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    assert load_denoiser(checkpoint).peak == 4095

    write_deep(tmp_path / "dim", 1023)
    frames = [tifffile.imread(path).astype(np.float64) for path in sorted((tmp_path / "dim").iterdir())]
    noise = 0.5 * np.mean((frames[0] - frames[1]) ** 2)
    line = (f"checkpoint={checkpoint}", *options, "data.root=dim", "data.val_fraction=1", "output=scores.json")
    for given, peak in (((), 4095), (("data.range=1023",), 1023)):
        ended = command(*line, *given, main=evaluate_main)
        assert ended.code == 0, ended.err
        scores = read_json(tmp_path / "scores.json")
        assert scores["noisy_psnr_pairs"] == pytest.approx(10 * math.log10(peak**2 / noise), abs=1e-3)


def test_8_bit_images_keep_their_range(trained_on: Trained, command: Command, noisy_images: Path, tmp_path: Path):
    content = torch.load(trained_on("burst") / "checkpoints/best.ckpt", weights_only=True)
    content["n2n_lightning"]["peak"] = 4095.0
    torch.save(content, tmp_path / "deep.ckpt")
    ended = command(
        "checkpoint=deep.ckpt", *source("burst", noisy_images), *CROPS, "output=scores.json", main=evaluate_main
    )
    assert ended.code == 0, ended.err
    noted = read_json(trained_on("burst") / "result.json")
    assert read_json(tmp_path / "scores.json")["noisy_psnr_pairs"] == pytest.approx(noted["noisy_psnr_pairs"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", MONITORS)
def test_evaluation_repeats_the_best_epochs_scores(
    trained_on: Trained, command: Command, noisy_images: Path, tmp_path: Path, kind: str
):
    checkpoint = trained_on(kind) / "checkpoints/best.ckpt"
    ended = command(
        f"checkpoint={checkpoint}", *source(kind, noisy_images), *CROPS, "output=scores.json", main=evaluate_main
    )
    assert ended.code == 0, ended.err
    scores, noted = read_json(tmp_path / "scores.json"), read_json(trained_on(kind) / "result.json")
    keys = [key for key in noted if key.startswith("val/") or key == "noisy_psnr_pairs"]
    keys = [key for key in keys if key != "val/psnr_sure"]  # other images may have other noise
    assert keys and {key: scores[key] for key in keys} == pytest.approx({key: noted[key] for key in keys}, rel=1e-6)
    assert scores["data"]["fingerprint"] == noted["data"]["fingerprint"]
    assert all(key in ended.out for key in keys)


def test_noisy_and_clean_images_are_evaluated_without_a_second_noisy_one(
    trained_on: Trained, command: Command, noisy_images: Path, tmp_path: Path
):
    names = (
        "data=pairs",
        f"data.source={noisy_images / '2'}",
        "data.target=null",
        f"data.clean={noisy_images / 'clean'}",
    )
    checkpoint = trained_on("burst") / "checkpoints/best.ckpt"
    line = (f"checkpoint={checkpoint}", *names, "data.crop_px=null", "data.val_fraction=1", "output=scores.json")
    ended = command(*line, main=evaluate_main)
    assert ended.code == 0, ended.err
    scores = read_json(tmp_path / "scores.json")
    assert scores["images"] == 5 and "val/psnr_pairs" not in scores
    images = (
        [np.asarray(Image.open(noisy_images / name / f"{n}.png"), float) for name in ("2", "clean")] for n in range(5)
    )
    noisy = [10 * math.log10(255**2 / np.mean((noisy - clean) ** 2)) for noisy, clean in images]
    assert scores["noisy_psnr"] == pytest.approx(np.mean(noisy), abs=1e-3)
