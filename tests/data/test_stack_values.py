"""Values as people have them: below 0, with a few far out, on another scale than the training's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import Command
from noisy_files import CROPS
from numbered_images import Array, load_all, make_data, write
from small_runs import assert_refused, evaluate_main, read_json, smooth_images

from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.paired import BurstData, PairsData
from n2n_lightning.models.checkpoint import load_denoiser

NET = ("model=dncnn", "model.layers=3", "model.width=8", "optimizer.lr=0.003", "trainer.accelerator=cpu", *CROPS)
SMALL = (*NET, "trainer.max_epochs=1", "data.cache_dir=cache", "hydra.run.dir=run")


def signed(dtype: str, low: float, high: float, count: int = 5) -> tuple[Array, Array, Array]:
    """Return scenes from ``low`` to ``high`` twice with noise and once without: (N, 48, 48) each."""
    clean = smooth_images(count, 48, seed=2).mean(1) / 255 * (high - low) + low
    rng = np.random.default_rng(0)
    noisy = [clean + rng.normal(0, 0.04 * (high - low), clean.shape) for _ in range(2)]
    first, second, clean = (np.rint(x).astype(dtype) if dtype[0] == "i" else x.astype(dtype) for x in (*noisy, clean))
    return first, second, clean


def write_signed(folder: Path, dtype: str, low: float, high: float) -> None:
    for name, images in zip("abc", signed(dtype, low, high), strict=True):
        for number, image in enumerate(images):
            write(folder / name / f"{number}.tif", image)


def pairs(*names: str) -> tuple[str, ...]:
    return ("data=pairs", *(f"data.{role}=given/{name}" for role, name in zip(("source", "target", "clean"), names)))  # noqa: B905


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int16", -1000, 400), ("float32", -0.3, 1.0), ("int32", -900, -100)]
)
def test_scores_of_values_below_zero_are_true(command: Command, tmp_path: Path, dtype: str, low: float, high: float):
    write_signed(tmp_path / "given", dtype, low, high)
    ended = command(*SMALL, *pairs("a", "b"), "data.train_pairs=800")
    assert ended.code == 0 and ", 1 stands for" in ended.out and "range -" in ended.out
    result = read_json(tmp_path / "run/result.json")
    assert result["status"] == "done" and result["data"]["span"][0] < 0
    about = torch.load("run/checkpoints/best.ckpt", weights_only=True)["n2n_lightning"]
    assert about["span"] == result["data"]["span"] and about["peak"] == result["data"]["peak"]
    assert about["reach"][0] <= about["reach"][1] <= about["peak"]

    line = ("checkpoint=run/checkpoints/best.ckpt", *pairs("a", "b", "c"), *CROPS, "data.cache_dir=cache")
    assert command(*line, "output=scores.json", main=evaluate_main).code == 0, "without data.range"
    scores = read_json(tmp_path / "scores.json")
    assert scores["val/psnr_pairs"] == pytest.approx(scores["val/psnr_pooled"], abs=0.3)
    module = load_denoiser("run/checkpoints/best.ckpt")
    data = make_data(PairsData, tmp_path, source="given/a", target="given/b", clean="given/c", val_fraction=0.4)
    pair = load_all(data, "val")
    assert pair.clean is not None
    with torch.inference_mode():
        error = module(pair.source / data.peak).clamp(*module.limits) - pair.clean / data.peak
    truth = -10 * np.log10(error.square().mean(dtype=torch.float64))
    assert scores["val/psnr_pooled"] == pytest.approx(float(truth), abs=0.01)


def test_arrays_below_zero():
    first, second, clean = signed("float32", -0.5, 0.25)
    data = ArrayData(source=first, target=second, clean=clean, crop_px=16)
    lowest, highest = min(first.min(), second.min()), max(first.max(), second.max())
    assert data.span == (lowest, highest) and data.peak == 1
    assert ArrayData(source=first + 1, target=second + 1, crop_px=16).span == (0, 2)


@pytest.mark.slow
def test_dark_float_frames_are_evaluated_without_a_range(command: Command, tmp_path: Path):
    write_signed(tmp_path / "given", "float32", 0, 1)
    assert command(*SMALL, *pairs("a", "b"), "data.range=1").code == 0
    for frame in range(2):
        dark = np.random.default_rng(frame).normal(0, 0.05, (48, 48))
        write(tmp_path / f"dark/{frame}.tif", dark.astype(np.float32))
    line = ("checkpoint=run/checkpoints/best.ckpt", "data=burst", "data.root=dark", *CROPS, "data.cache_dir=cache")
    ended = command(*line, "output=scores.json", main=evaluate_main)
    assert ended.code == 0, ended.err
    assert read_json(tmp_path / "scores.json")["data"]["peak"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_few_values_far_out_do_not_set_the_range(command: Command, tmp_path: Path, dtype: str):
    rng = np.random.default_rng(0)
    frames = (1.5 * smooth_images(1, 64, seed=2).mean(1) + rng.normal(0, 20, (5, 64, 64))).clip(0, 400).astype(dtype)
    frames[2, 10, 10] = 65000
    write(tmp_path / "given/burst.tif", frames)
    ended = command(*SMALL, "data=burst", "data.root=given/burst.tif")
    assert ended.code == 0 and "1 value far out, in given/burst.tif" in ended.err
    data = read_json(tmp_path / "run/result.json")["data"]
    assert (
        data["peak"] == {"uint16": 511, "float32": 512}[dtype]
        and data["outliers"] == 1
        and data["outlier_files"] == ["given/burst.tif"]
    )
    crops = {
        given: load_all(make_data(BurstData, tmp_path, root="given/burst.tif", range=given, train_pairs=900), "train")
        for given in (None, 65535.0)
    }
    assert crops[None].source.max() == data["peak"] and crops[65535.0].source.max() == 65000, "a given range wins"


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "fix"), [(255.0, 512), (65535.0, 131072), (1e-3, 0.001953125)])
def test_another_scale_than_the_trainings_is_refused(command: Command, tmp_path: Path, factor: float, fix: float):
    write_signed(tmp_path / "given", "float32", 0, 1)
    assert command(*SMALL, *pairs("a", "b")).code == 0
    for name in "ab":
        for path in sorted((tmp_path / "given" / name).iterdir()):
            tifffile.imwrite(path, (tifffile.imread(path) * factor).astype(np.float32))
    Path("run").rename("given/run")
    line = ("checkpoint=given/run/checkpoints/best.ckpt", *pairs("a", "b"), *CROPS, "data.cache_dir=given/cache")
    Path("cache").rename("given/cache")
    ended = command(*line, "output=scores.json", main=evaluate_main)
    assert_refused(ended, tmp_path, "given/", "may be on another scale", f"data.range={fix}", "data.range=2 ")
    assert command(*line, f"data.range={fix}", "output=scores.json", main=evaluate_main).code == 0
    scores = read_json(tmp_path / "scores.json")
    assert scores["data"]["peak"] == fix and "scale" not in ended.out


@pytest.mark.slow
def test_a_training_starts_from_weights_of_the_same_scale_only(command: Command, tmp_path: Path):
    write_signed(tmp_path / "given", "float32", 0, 1)
    assert command(*SMALL, *pairs("a", "b"), "data.range=64").code == 0
    line = (*SMALL[:-1], *pairs("a", "b"), "init_from=run/checkpoints/best.ckpt", "hydra.run.dir=second")
    ended = command(*line)
    assert ended.code == 2 and "init_from" in ended.err and "data.range=64" in ended.err
    assert command(*line, "data.range=64").code == 0 and command(*line, "data.range=2", "study=x").code == 2
