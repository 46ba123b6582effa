"""Runs from end to end on each source of image files: results, resuming, fine-tuning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Trained
from noisy_files import ALL, MONITORS, source, stored
from numbered_images import write
from PIL import Image
from small_runs import (
    METRICS_COLUMNS,
    RESULT_KEYS,
    assert_same_weights,
    compose_settings,
    read_json,
    read_table,
    smooth_images,
    timeless,
    timeless_table,
    train_with,
)
from torch import Tensor

from n2n_lightning.data.datamodule import scale_pair
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.losses import l2
from n2n_lightning.metrics import bootstrap_interval
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.self_supervised.neighbor2neighbor import halves_loss
from n2n_lightning.system import errors
from n2n_lightning.training.build import build_datamodule
from n2n_lightning.training.callbacks import NOISY_COLUMNS


def validation(kind: str, noisy_images: Path) -> NoisyPair:
    """All of a source's validation pairs, with 1 for the range."""
    datamodule = build_datamodule(compose_settings(*source(kind, noisy_images), *ALL))
    datamodule.setup("validate")
    val = datamodule.sources["val"]
    return scale_pair(val.batch(torch.arange(len(val)), seeded_generator(0)), datamodule.data.peak)


def mean_square(images: Tensor) -> float:
    return images.double().square().mean().item()


# The result


@pytest.mark.slow
@pytest.mark.parametrize("kind", MONITORS)
def test_the_result_and_the_table_hold_what_the_source_can_tell(trained_on: Trained, kind: str):
    run = trained_on(kind)
    result, rows = read_json(run / "result.json"), read_table(run)
    has_clean, has_pairs = kind == "clean", kind != "single"
    assert result["monitor"] == MONITORS[kind] and result["status"] in ("done", "dead") and result["epochs"] == 2
    assert result["data"]["name"] == kind and result["data"]["peak"] == 255 and result["image_shape"] == [3, 16, 16]
    assert (result["train_pairs"], result["val_pairs"]) == (24, 18)
    for key in ("val/psnr", "val/psnr_pooled", "val/ssim"):
        assert (key in result) == has_clean
    assert (result["noisy_psnr"] is not None) == has_clean
    for key in ("val/psnr_pairs", "val/psnr_pairs_low", "val/psnr_pairs_high", "noisy_psnr_pairs"):
        assert (key in result) == has_pairs
    assert ("val/loss_floor" in result) == (has_pairs and not has_clean)
    assert RESULT_KEYS - result.keys() <= {"val/psnr", "val/psnr_pooled", "val/ssim"}
    if has_pairs:
        assert result["val/psnr_pairs_low"] <= result["val/psnr_pairs"] <= result["val/psnr_pairs_high"]
    assert result["noise"] == ({"name": "gaussian", "sigma": 25} if kind == "clean" else None)

    of_pairs = NOISY_COLUMNS[:-1]
    extra = {"burst": of_pairs, "pairs": of_pairs, "clean": of_pairs[1:], "single": NOISY_COLUMNS[-1:]}[kind]
    assert rows[0].keys() == METRICS_COLUMNS | set(extra)
    for row in rows:
        for key, value in row.items():
            if key in ("val/psnr", "val/ssim") and not has_clean:
                assert value == ""
            else:
                assert math.isfinite(float(value))
    best = [float(row[MONITORS[kind]]) for row in rows]
    best = max(best)
    assert result[MONITORS[kind]] == best == float(rows[result["best_epoch"] - 1][MONITORS[kind]])


@pytest.mark.parametrize("kind", ["burst", "pairs", "clean"])
def test_psnr_of_pairs_and_the_floor_are_as_by_hand(trained_on: Trained, noisy_images: Path, kind: str):
    """18 crops of 2 scenes in batches of 5, 5, 5 and 3."""
    run, pair = trained_on(kind), validation(kind, noisy_images)
    result = read_json(run / "result.json")
    denoiser = load_denoiser(run / "checkpoints/best.ckpt")
    assert pair.target is not None and len(pair.source) == 18
    y1, y2 = pair.source, pair.target
    with torch.no_grad():
        g1, g2 = denoiser(y1), denoiser(y2)
    shown = g1.clamp(0, 1)
    if kind == "burst":
        assert pair.third is not None
        errors = ((shown - y2) * (shown - pair.third)).double()
        noisy_mse = ((y1 - y2) * (y1 - pair.third)).double().mean().item()
    else:
        assert pair.third is None
        errors = 0.5 * ((shown - y2) ** 2 + (g2.clamp(0, 1) - y1) ** 2 - (y1 - y2) ** 2).double()
        noisy_mse = 0.5 * mean_square(y1 - y2)
    assert result["val/psnr_pairs"] == pytest.approx(-10 * math.log10(errors.mean().item()), abs=1e-3)
    scene = torch.arange(18) // 9
    low, high = bootstrap_interval(errors.flatten(1).mean(1), scene) or (0, 0)
    assert result["val/psnr_pairs_low"] == pytest.approx(-10 * math.log10(high), abs=1e-3)
    assert result["val/psnr_pairs_high"] == pytest.approx(-10 * math.log10(low), abs=1e-3)
    assert result["noisy_psnr_pairs"] == pytest.approx(-10 * math.log10(noisy_mse), abs=1e-3)
    if kind == "clean":
        assert pair.clean is not None
        assert result["val/loss"] == pytest.approx(mean_square(g1 - pair.clean), rel=1e-4)
        assert result["val/psnr_pooled"] == pytest.approx(-10 * math.log10(mean_square(shown - pair.clean)), abs=1e-3)
    else:
        assert result["val/loss"] == pytest.approx(mean_square(g1 - y2), rel=1e-4)
        other = y2.mean((2, 3), keepdim=True) if pair.third is None else pair.third
        assert result["val/loss_floor"] == pytest.approx(((y2 - other) * (y2 - y1)).mean().item(), rel=1e-4)


def test_pictures_of_single_images_have_no_target(trained_on: Trained):
    shown = {"noisy", "denoised", "residual"}
    for kind, names in (("single", shown), ("burst", shown | {"target"})):
        with np.load(trained_on(kind) / "images.npz") as kept:
            assert set(kept) == names and kept["denoised"].shape == (8, 16, 16, 3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("kind", MONITORS)
def test_validation_does_not_depend_on_its_batch_size(
    trained_on: Trained, noisy_images: Path, tmp_path: Path, kind: str, size: int
):
    other = train_with(tmp_path / "run", *source(kind, noisy_images), *ALL, f"data.val_batch_size={size}")
    assert_same_weights(other / "checkpoints/last.ckpt", trained_on(kind) / "checkpoints/last.ckpt")
    for ours, theirs in zip(read_table(other), read_table(trained_on(kind)), strict=True):
        for column in ours.keys() - {"seconds"}:
            assert ours[column] == theirs[column] or float(ours[column]) == pytest.approx(
                float(theirs[column]), rel=1e-5
            ), column


# Resuming, fine-tuning, grey images


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["burst", "single"])
def test_two_epochs_and_one_more_equal_three_at_once(noisy_images: Path, tmp_path: Path, kind: str):
    turned = "data.augment=[flip]" if kind == "single" else "data.augment=[flip,swap]"
    options = (*source(kind, noisy_images), *ALL, turned, "loss=l2")
    whole = train_with(tmp_path / "whole", *options, "trainer.max_epochs=3")
    parts = train_with(tmp_path / "parts", *options)
    train_with(tmp_path / "parts", *options, "trainer.max_epochs=3")
    assert timeless_table(parts) == timeless_table(whole)
    for name in ("best", "last"):
        assert_same_weights(parts / f"checkpoints/{name}.ckpt", whole / f"checkpoints/{name}.ckpt")
    assert timeless(read_json(parts / "result.json")) == timeless(read_json(whole / "result.json"))


def test_a_longer_run_is_refused_once_the_regularisers_weight_has_risen(trained_on: Trained, noisy_images: Path):
    with pytest.raises(errors.InputError, match=r"another configuration: trainer\.max_epochs"):
        train_with(trained_on("single"), *source("single", noisy_images), *ALL, "trainer.max_epochs=3")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MONITORS)
def test_overfitting_repeats_one_batch_and_its_noise(noisy_images: Path, tmp_path: Path, kind: str):
    options = (*source(kind, noisy_images), *ALL, "debug=overfit", "data.overfit_steps=3", "trainer.max_epochs=1")
    datamodule = build_datamodule(compose_settings(*options))
    datamodule.setup("fit")
    first, *others = datamodule.train_dataloader()
    assert len(others) == 2
    second_images = [pair.seeds if kind == "single" else pair.target for pair in (first, *others)]
    assert all(torch.equal(pair.source, first.source) for pair in others)
    assert all(torch.equal(images, second_images[0]) for images in second_images)
    verdict = read_json(train_with(tmp_path / "run", *options) / "result.json")["overfit"]
    pair = scale_pair(first, 255)
    constant = (
        halves_loss(lambda x: x.mean((0, 2, 3), keepdim=True).expand_as(x), l2, pair.source, pair.seeds).item()
        if kind == "single"
        else pair.target.double().var((0, 2, 3), correction=0).mean().item()
    )
    assert verdict["constant_loss"] == pytest.approx(constant, rel=1e-5)


def test_a_run_starts_from_weights_that_were_trained_on_another_source(
    trained_on: Trained, noisy_images: Path, tmp_path: Path
):
    start = trained_on("clean") / "checkpoints/best.ckpt"
    options = (*source("burst", noisy_images), *ALL, f"init_from={start}", "optimizer.lr=1e-30", "trainer.max_epochs=1")
    run = train_with(tmp_path / "run", *options)
    assert_same_weights(run / "checkpoints/last.ckpt", start)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["burst", "clean"])
def test_grey_images_train_and_their_weights_do_not_fit_colours(noisy_images: Path, tmp_path: Path, kind: str):
    for path in (noisy_images / "frames").rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L"))
        write(tmp_path / path.relative_to(noisy_images), grey)
        write(tmp_path / f"clean/{path.parent.name}.png", grey)
    options = (*source(kind, tmp_path), *ALL, "trainer.max_epochs=1")
    run = train_with(tmp_path / "run", *options)
    assert read_json(run / "result.json")["image_shape"] == [1, 16, 16]
    assert load_denoiser(run / "checkpoints/best.ckpt").denoise(torch.rand(1, 1, 20, 20)).shape == (1, 1, 20, 20)
    with pytest.raises(errors.InputError, match=r"best\.ckpt is for images of 1 channels, the data has 3"):
        colours = (*source(kind, noisy_images), *ALL, f"init_from={run / 'checkpoints/best.ckpt'}")
        train_with(tmp_path / "other", *colours)
    assert not (tmp_path / "other").exists()


def test_another_folder_under_the_same_name_is_refused(noisy_images: Path, tmp_path: Path):
    write(tmp_path / "burst/0.npy", stored(smooth_images(1, 48, seed=0)[0].transpose(1, 2, 0)))
    write(tmp_path / "burst/1.npy", stored(smooth_images(1, 48, seed=1)[0].transpose(1, 2, 0)))
    options = (f"data.root={tmp_path / 'burst'}", f"data.cache_dir={tmp_path / 'cache'}", *ALL)
    run = train_with(tmp_path / "run", "data=burst", *options)
    write(tmp_path / "burst/1.npy", stored(smooth_images(1, 48, seed=2)[0].transpose(1, 2, 0)))
    with pytest.raises(errors.InputError, match="the data is not what"):
        train_with(run, "data=burst", *options, "trainer.max_epochs=3")
