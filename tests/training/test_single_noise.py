"""What is measured in the training images for a loss: the variance of the noise, and the mask of correlated noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from small_runs import assert_same_weights, read_json, smooth_images, train_with

from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.training.single_noise import choose_mask, describe_variance, measure_variance

Images = npt.NDArray[np.float32]
LENGTHS = {"rows": (1, 5), "columns": (5, 1), "block": (3, 3), "none": (1, 1)}


def noisy_images(mask: str, channels: int = 1) -> Images:
    """Return smooth images with noise that is constant over pieces of the mask's form, (4, C, 96, 96) in 0..1."""
    down, right = LENGTHS[mask]
    rng = np.random.default_rng(0)
    clean = smooth_images(4, 96, seed=1, channels=channels) / 255
    pieces = rng.normal(0, 0.1, (4, channels, 100, 100)).repeat(down, 2).repeat(right, 3)
    return np.float32(clean + pieces[..., 2:98, 2:98] + rng.normal(0, 0.02, clean.shape))


@pytest.mark.parametrize(("mask", "reach"), [("rows", 4), ("columns", 4), ("block", 2), ("none", 1)])
def test_the_mask_follows_the_correlation(mask: str, reach: int):
    found = choose_mask(noisy_images(mask), None)
    assert found.chosen is not None
    assert found.chosen.mask == mask and abs(found.chosen.mask_px - reach) <= 1
    assert f"loss.mask={mask}" in found.text and "correlation of neighbours" in found.text
    set_by_user = choose_mask(noisy_images(mask), 7).chosen
    assert set_by_user is not None and set_by_user.mask_px == 7


def test_a_line_that_meets_0_is_told_by_the_black_level():
    assert "gain 0.0200, sigma 25.5 of 255, as set" in describe_variance(([0.02], [0.01]), "as set").text
    text = describe_variance(([0.02, 0.02], [-0.001, -0.002]), "as set").text
    assert "gain 0.0200 above a black level of 0.050 0.100 of the range, as set" in text


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_the_variance_is_that_of_the_noise(channels: int):
    rng = np.random.default_rng(0)
    clean = smooth_images(4, 128, seed=1, channels=channels) / 255
    noisy = np.float32(clean + rng.normal(0, 25 / 255, clean.shape))
    found = measure_variance(noisy)
    assert found.variance is not None
    slope, offset = (np.array(values) for values in found.variance)
    assert slope.shape == offset.shape == (channels,)
    np.testing.assert_allclose(slope * 0.5 + offset, (25 / 255) ** 2, rtol=0.1)
    assert found.text.startswith("noise: gain 0.0") and "measured in the training images" in found.text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    for number, image in enumerate(noisy_images("rows")):
        tifffile.imwrite(tmp_path / "root" / f"{number}.tif", image[0])
    return tmp_path / "root"


SMALL = (
    *("data=single", "data.range=1", "data.train_pairs=16", "data.val_pairs=4", "data.crop_px=32"),
    *("model=zs_n2n", "model.width=4", "trainer.accelerator=cpu", "scheduler=none"),
)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [["loss=noise2void", "loss.mask=auto"], ["loss=r2r"], ["loss=zs_n2n"]])
def test_a_run_says_and_records_what_it_measured_and_resumes_exactly(
    root: Path, tmp_path: Path, loss: list[str], capsys: pytest.CaptureFixture[str]
):
    options = [*SMALL, f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", *loss]
    whole = train_with(tmp_path / "whole", *options, "trainer.max_epochs=2")
    measured = read_json(whole / "result.json").get("noise_measured")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("noise: ")]
    assert said[0].startswith("noise: gain ") and len(measured["slope"]) == len(measured["offset"]) == 1
    assert not measured["is_trusted"], "the noise is correlated"
    if "loss.mask=auto" in loss:
        assert measured["mask"] == "rows" and said[1].endswith("images are not rotated")
    if loss == ["loss=r2r"]:  # whose length may change, because the loss does not depend on the progress
        parts = train_with(tmp_path / "parts", *options, "trainer.max_epochs=1")
        train_with(parts, *options, "trainer.max_epochs=2")
        assert_same_weights(parts / "checkpoints/last.ckpt", whole / "checkpoints/last.ckpt")
        assert read_json(parts / "result.json")["noise_measured"] == measured


@pytest.mark.slow
def test_a_known_noise_gives_psnr_by_sure_which_selects_the_epoch(tmp_path: Path):
    rng = np.random.default_rng(2)
    clean = np.float32(smooth_images(2, 96, seed=1, channels=1)[:, 0] / 255)
    (tmp_path / "root").mkdir()
    for number, image in enumerate(clean):
        tifffile.imwrite(tmp_path / f"root/{number}.tif", np.float32(image + rng.normal(0, 0.1, image.shape)))
    options = [*SMALL, f"data.root={tmp_path / 'root'}", f"data.cache_dir={tmp_path / 'cache'}"]
    known = ["loss=r2r", "loss.sigma=25.5", "loss.alpha=1", "trainer.max_epochs=3", "optimizer.lr=0.01"]
    run = train_with(tmp_path / "run", *options, *known, "data.train_pairs=256", "data.val_pairs=9")
    result = read_json(run / "result.json")
    assert result["monitor"] == "val/psnr_sure" and result["noisy_psnr_sure"] == pytest.approx(20, abs=1e-3)
    assert result["val/psnr_sure"] > 22, "the net denoises"
    # the truth, on the validation crops: the second image, on a grid
    module = load_denoiser(run / "checkpoints/best.ckpt")
    numbers = range(2)
    errors = [
        float(np.square(module.denoise(torch.from_numpy(noisy)[None, None]).numpy()[0, 0] - clean[n]).mean())
        for n in numbers
        for noisy in [tifffile.imread(tmp_path / f"root/{n}.tif")]
    ]
    truth = -10 * np.log10(np.array(errors))
    assert truth.min() - 1 < result["val/psnr_sure"] < truth.max() + 1
    assert set(result["filters"]) >= {"median", "gaussian", "non_local_means"}
    assert all("psnr_sure" in entry for entry in result["filters"].values())


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "monitor"), [("none", "val/psnr_sure"), ("rows", "val/loss")])
def test_noise_that_neighbours_share_by_the_mask_has_no_estimate(
    tmp_path: Path, mask: str, monitor: str, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(2)
    (tmp_path / "root").mkdir()
    for number, image in enumerate(smooth_images(4, 96, seed=0).transpose(0, 2, 3, 1) / 255):
        noisy = np.float32(image + rng.normal(0, 0.1, image.shape))
        tifffile.imwrite(tmp_path / f"root/{number}.tif", noisy, photometric="rgb")
    options = [*SMALL, f"data.root={tmp_path / 'root'}", f"data.cache_dir={tmp_path / 'cache'}", "data.range=2"]
    masked = ["loss=noise2void", f"loss.mask={mask}", "data.augment=[flip]", "trainer.max_epochs=1"]
    result = read_json(train_with(tmp_path / "run", *options, *masked) / "result.json")
    assert result["monitor"] == monitor
    assert ("loss.mask=rows is for noise that neighbours share" in capsys.readouterr().out) == (mask == "rows")
