"""Scores on benchmark sets: whole images of any sizes, each as by hand, 8-bit outputs, and how many there must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from numbered_images import write
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_runs import assert_refused, compose_config, evaluate_main, read_json, smooth_images, write_checkpoint

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.metrics import RestorationQuality
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.training.build import build_datamodule
from n2n_lightning.training.check import check_data

SIZES = ((40, 52), (33, 24), (24, 33), (40, 52))  # rows and columns
SSIM = {"channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs of three sizes, and an untrained net."""
    folder = tmp_path_factory.mktemp("benchmark")
    for number, (height, width) in enumerate(SIZES):
        pixels = smooth_images(1, 64, seed=number)[0, :, :height, :width].transpose(1, 2, 0)
        write(folder / f"images/{'dbca'[number]}.png", np.rint(pixels).astype(np.uint8))
    write_checkpoint(folder / "net.ckpt", "convtrans_relu")
    return folder


def options(given: Path, *more: str) -> list[str]:
    """Return the overrides of a benchmark with four images."""
    data = ("data=set14", f"data.root={given / 'images'}", f"data.cache_dir={given / 'cache'}", "data.images=4")
    return [*data, *more]


def datamodule_of(given: Path, *more: str) -> NoisyPairDataModule:
    return build_datamodule(check_data(compose_config("checkpoint=x", *options(given, *more), name="evaluate")))


def scored(command: Command, given: Path, *more: str) -> tuple[dict[str, Any], str]:
    ended = command(
        f"checkpoint={given / 'net.ckpt'}", "output=scores.json", *options(given, *more), main=evaluate_main
    )
    assert ended.code == 0, ended.err
    return read_json(Path("scores.json")), ended.out


def test_whole_images_are_scored_one_by_one_as_by_hand(command: Command, given: Path):
    noise = ("noise=gaussian", "noise.sigma=40")
    scores, out = scored(command, given, *noise)
    datamodule = datamodule_of(given, *noise)
    datamodule.setup("validate")
    denoiser = load_denoiser(given / "net.ckpt")
    paths = sorted((given / "images").iterdir())
    expected: dict[str, list[float]] = {"psnr": [], "noisy_psnr": [], "ssim": []}
    losses = []
    for path, (noisy, _, shown, *_) in zip(paths, datamodule.val_dataloader(), strict=True):
        clean = np.asarray(Image.open(path)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(shown[0] / 255, clean, atol=1e-6)
        off = (noisy[0] / 255).double().numpy() - clean
        assert abs(off.std() * 255 - 40) < 5 * 40 / (2 * off.size) ** 0.5 and noisy.shape[1:] == clean.shape
        estimate = denoiser.denoise(noisy / 255)[0].double().numpy()
        losses.append(np.mean((estimate - clean) ** 2))
        expected["psnr"].append(peak_signal_noise_ratio(clean, estimate.clip(0, 1), data_range=1))
        noisy_psnr = peak_signal_noise_ratio(clean, (clean + off).clip(0, 1), data_range=1)
        expected["noisy_psnr"].append(noisy_psnr)
        expected["ssim"].append(structural_similarity(clean, estimate.clip(0, 1), **SSIM))
    assert [Path(name).name for name in scores["per_image"]["image"]] == [path.name for path in paths]
    for key, values in expected.items():
        assert scores["per_image"][key] == pytest.approx(values, abs=2e-4)
    assert scores["images"] == 4 and scores["val/psnr"] == pytest.approx(np.mean(expected["psnr"]), abs=2e-4)
    assert scores["val/ssim"] == pytest.approx(np.mean(expected["ssim"]), abs=2e-4)
    assert scores["val/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert scores["noise"] == {"name": "gaussian", "sigma": 40} and scores["quantize"] is False
    rows = [line.split() for line in out.splitlines() if ".png" in line]
    assert [row[0] for row in rows] == [path.name for path in paths]
    assert [float(row[2]) for row in rows] == scores["per_image"]["psnr"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "text", "bernoulli"])
def test_scores_do_not_depend_on_the_batch_size(command: Command, given: Path, name: str):
    one, many = (scored(command, given, f"noise={name}", f"data.val_batch_size={size}")[0] for size in (1, 100))
    assert one["per_image"] == many["per_image"]
    for key in ("val/psnr", "val/ssim", "val/loss", "noisy_psnr", "gain_db"):
        assert one[key] == many[key]


def test_an_output_of_8_bits_is_scored_as_it_would_be_written(command: Command, given: Path):
    plain, rounded = (scored(command, given, f"quantize={value}")[0] for value in ("false", "true"))
    assert rounded["quantize"] is True and plain["per_image"]["psnr"] != rounded["per_image"]["psnr"]
    assert plain["per_image"]["noisy_psnr"] == rounded["per_image"]["noisy_psnr"]
    datamodule = datamodule_of(given)
    datamodule.setup("validate")
    denoiser = load_denoiser(given / "net.ckpt")
    for number, (noisy, _, clean, *_) in enumerate(datamodule.val_dataloader()):
        estimate = denoiser.denoise(noisy / 255)[0].double().numpy()
        written = np.rint(estimate.clip(0, 1) * 255).astype(np.uint8)
        expected = peak_signal_noise_ratio(clean[0].round().byte().numpy(), written)
        assert rounded["per_image"]["psnr"][number] == pytest.approx(expected, abs=2e-4)


def test_rounding_is_of_the_estimate_alone():
    clean, noisy = torch.full((1, 1, 16, 16), 100 / 255), torch.full((1, 1, 16, 16), 100.4 / 255)
    quality = RestorationQuality(quantize=True)
    quality.update(noisy, torch.full((1, 1, 16, 16), 102.4 / 255), clean)
    scores = quality.per_image()
    assert scores["psnr"].item() == pytest.approx(20 * np.log10(255 / 2), abs=1e-3)
    assert scores["noisy_psnr"].item() == pytest.approx(20 * np.log10(255 / 0.4), abs=1e-3)


@pytest.mark.parametrize(("data", "count"), [("kodak24", 24), ("set14", 14), ("bsds300", 100)])
def test_a_benchmark_of_another_number_of_images_is_refused(
    command: Command, given: Path, tmp_path: Path, data: str, count: int
):
    line = [f"checkpoint={given / 'net.ckpt'}", f"data={data}", f"data.root={given / 'images'}"]
    ended = command(*line, f"data.cache_dir={given / 'cache'}", main=evaluate_main)
    assert_refused(ended, tmp_path, f"must hold the benchmark's {count} images, got 4", "data.root")


def test_a_benchmark_is_not_trained_on(command: Command, given: Path, tmp_path: Path):
    assert_refused(command(*options(given), "model=convtrans_relu"), tmp_path, "leaves none for training")


def test_an_image_that_is_too_small_for_ssim_is_scored_beside_others(command: Command, tmp_path: Path, given: Path):
    for number, height in enumerate((8, 32)):
        pixels = np.rint(smooth_images(1, 32, seed=number)[0].transpose(1, 2, 0)).astype(np.uint8)
        write(tmp_path / f"small/{number}.png", pixels[:height])
    scores, out = scored(command, given, f"data.root={tmp_path / 'small'}", "data.images=2")
    assert len(scores["per_image"]["psnr"]) == 2
    assert "0.png" in out and "1.png" in out
