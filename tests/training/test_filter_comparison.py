"""Filters beside the net: scored on the validation images of one's own data, told at a run's end, and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import Trained
from noisy_files import ALL, source
from skimage import data as photographs
from skimage import transform
from small_runs import read_json, smooth_images, timeless, train_with

from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.single import SingleData
from n2n_lightning.filters import FILTERS, gaussian_blur
from n2n_lightning.metrics import psnr_db, squared_error
from n2n_lightning.noise_variance import NoiseVariance
from n2n_lightning.training import filter_comparison
from n2n_lightning.training.filter_comparison import compare_filters, read_pair, score_filter, spread_indices
from n2n_lightning.training.filter_scores import TITLES, FilterScores

UNIT = (0.0, 1.0)
SCORED = [name for name, one in FILTERS.items() if one.installed and not one.slow]


def coffee(count: int, *, low: float = 0.0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return crops of a photograph, (12, 3, 48, 48) in ``low``..``low`` + 1, and noisy versions of them."""
    photo = transform.resize(photographs.coffee() / 255.0, (144, 192), anti_aliasing=True)
    crops = torch.from_numpy(photo).permute(2, 0, 1).unfold(1, 48, 48).unfold(2, 48, 48)
    clean = crops.permute(1, 2, 0, 3, 4).reshape(-1, 3, 48, 48)
    rng = np.random.default_rng(0)
    frames = [rng.poisson(clean * 40) / 40 + rng.normal(0, 0.03, clean.shape) + low for _ in range(count)]
    return (clean + low).float(), [torch.from_numpy(frame).float() for frame in frames]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("frames", [2, 6])
@pytest.mark.parametrize("low", [0.0, -0.5])
def test_the_strength_is_near_the_best_against_the_truth_and_so_is_the_score(name: str, frames: int, low: float):
    clean, noisy = coffee(frames, low=low)
    third = torch.stack(noisy[2:]).mean(0) if frames > 2 else None
    limits = (low, low + 1)
    strength, score = score_filter(name, NoisyPair(noisy[0], noisy[1], third=third), limits)
    noise = NoiseVariance.fit(noisy[0].numpy(), noisy[1].numpy())
    results = {s: torch.from_numpy(FILTERS[name].apply(noisy[0].numpy(), s, noise)) for s in FILTERS[name].strengths}
    true = {s: psnr_db(squared_error(image, clean, limits).mean()).item() for s, image in results.items()}
    assert true[strength] > max(true.values()) - 0.1
    assert score == pytest.approx(true[strength], abs=0.3)


def test_with_clean_images_the_score_is_the_mean_psnr_against_them():
    clean, (noisy,) = coffee(1)
    strength, score = score_filter("gaussian", NoisyPair(noisy, None, clean), UNIT)
    blurred = torch.from_numpy(gaussian_blur(noisy.numpy(), strength))
    mse = (blurred.clamp(0, 1) - clean).double().square().mean((1, 2, 3))
    assert score == pytest.approx((10 * torch.log10(1 / mse)).mean().item(), abs=1e-4)


@pytest.mark.parametrize(("count", "most"), [(1, 0), (1, 5), (7, 0), (400, 3), (400, 400), (400, 399), (5, 900)])
def test_indices_are_spread_evenly(count: int, most: int):
    indices = spread_indices(count, most).tolist()
    assert len(set(indices)) == len(indices) == min(max(most, 1), count)
    assert indices[0] == 0 and (len(indices) == 1 or indices[-1] == count - 1)
    steps = np.diff(indices)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def array_module(size: int, crop_px: int | None, *, channels: int = 2) -> NoisyPairDataModule:
    rng = np.random.default_rng(0)
    clean = smooth_images(3, size, seed=1, channels=channels).transpose(0, 2, 3, 1) / 255
    first, second = (clean + rng.normal(0, 0.1, clean.shape) for _ in range(2))
    arrays = ArrayData(source=first, target=second, crop_px=crop_px, range=1.0, val_fraction=0.67)
    module = NoisyPairDataModule(arrays, val_batch_size=3)
    module.setup("fit")
    return module


def test_a_part_of_many_crops_and_the_middle_of_large_ones_is_read(monkeypatch: pytest.MonkeyPatch):
    module = array_module(64, 16)
    whole = module.sources["val"].batch(torch.arange(32), torch.Generator())
    assert torch.equal(read_pair(module, filter_comparison.SCORED_PX).source, whole.source.float())
    monkeypatch.setattr(filter_comparison, "SCORED_PX", 5 * 16 * 16)
    assert torch.equal(
        read_pair(module, filter_comparison.SCORED_PX).source, whole.source[spread_indices(32, 5)].float()
    )

    monkeypatch.setattr(filter_comparison, "SCORED_PX", 20 * 20)
    module = array_module(64, 64)
    middle = module.sources["val"].batch(torch.tensor([0]), torch.Generator()).source[..., 22:42, 22:42]
    assert torch.equal(read_pair(module, filter_comparison.SCORED_PX).source, middle.float())


# Runs


@pytest.mark.parametrize("kind", ["burst", "pairs", "clean"])
def test_runs_on_ones_own_images_record_what_filters_reach(trained_on: Trained, kind: str):
    result = read_json(trained_on(kind) / "result.json")
    key = "psnr" if kind == "clean" else "psnr_pairs"
    assert list(result["filters"]) == SCORED, "all validation images were used"
    for name, entry in result["filters"].items():
        assert entry.keys() == {"strength", key} and entry["strength"] in FILTERS[name].strengths
        assert entry[key] > result[f"noisy_{key}"] + 1


def single_module(folder: Path) -> NoisyPairDataModule:
    """Return the data module of single images, a photograph of 128x192 px with Gaussian noise of 0.1 of the range."""
    photo = transform.resize(photographs.coffee()[..., 0] / 255.0, (128, 192), anti_aliasing=True)
    noisy = photo + np.random.default_rng(0).normal(0, 0.1, photo.shape)
    tifffile.imwrite(folder / "noisy.tif", noisy.astype(np.float32))
    module = NoisyPairDataModule(
        SingleData(root=str(folder), range=1.0, val_fraction=1, cache_dir=str(folder / "cache"))
    )
    module.setup("validate")
    return module


def test_filters_of_single_images_are_scored_by_sure_where_the_noise_is_known(tmp_path: Path):
    module = single_module(tmp_path)
    assert compare_filters(module, UNIT, tmp_path / "none", part=False) == {}
    noise = NoiseVariance(np.zeros(1), np.full(1, 0.01))
    found = compare_filters(module, UNIT, tmp_path / "none", part=False, noise=noise)
    assert list(found) == SCORED
    noisy = read_pair(module, filter_comparison.SURE_PX).source.numpy()
    photo = transform.resize(photographs.coffee()[..., 0] / 255.0, (128, 192), anti_aliasing=True)
    clean = photo.reshape(2, 64, 3, 64).swapaxes(1, 2).reshape(6, 1, 64, 64)
    for name, entry in found.items():
        errors = {s: np.square(FILTERS[name].apply(noisy, s, noise) - clean).mean() for s in FILTERS[name].strengths}
        assert errors[entry["strength"]] <= 1.05 * min(errors.values())
        true = -10 * np.log10(errors[entry["strength"]])
        assert entry["psnr_sure"] == pytest.approx(true, abs=0.7)  # 0.25 dB is the standard error of so few pixels
    record = {"monitor": "val/loss", "val/loss": 0.01, "val/psnr_sure": 20.0, "filters": found}
    scores = FilterScores.read(record)
    assert scores is not None and scores.net_loses and scores.net == 20.0
    assert FilterScores.read(record | {"filters": {}}) is None


def test_the_studys_photographs_have_none(four_epochs: Path):
    assert "filters" not in read_json(four_epochs / "result.json")


def test_single_images_of_known_noise_have_them_by_sure(trained_on: Trained):
    found = read_json(trained_on("single") / "result.json")["filters"]
    assert "gaussian" in found and all(set(entry) == {"strength", "psnr_sure"} for entry in found.values())


def last_lines(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[next(n for n, line in enumerate(lines) if line.startswith("run: d")) :]


def test_a_net_that_loses_is_said_to_and_what_helps(noisy_images: Path, tmp_path: Path, capfd: Any):
    train_with(tmp_path / "run", *source("burst", noisy_images), *ALL, "optimizer.lr=1e-9")
    first, second = last_lines(capfd.readouterr().out)
    filters = read_json(tmp_path / "run/result.json")["filters"]
    shown = [f"{title} {filters[name]['psnr_pairs']:.1f}" for name, title in TITLES.items() if name in SCORED]
    assert all(text in first for text in shown)
    assert "dB better than the net" in second and "init_from" in second and "trainer.max_epochs" in second

    train_with(tmp_path / "run", *source("burst", noisy_images), *ALL, "optimizer.lr=1e-9")
    assert "already done, skipped" in capfd.readouterr().out


def two_levels(images: torch.Tensor) -> torch.Tensor:
    """Denoise as a net would that nearly knows the two levels of ``write_dots``: 40.8 dB."""
    return torch.where(images > 0.5, 60600 / 65535, 5600 / 65535)


def write_dots(folder: Path) -> Path:
    """Write a burst of three frames of black and white pixels at random, which every filter blurs or leaves noisy."""
    rng = np.random.default_rng(0)
    dots = np.where(rng.random((64, 64)) > 0.5, 60000.0, 5000.0)
    folder.mkdir()
    for number in range(3):
        tifffile.imwrite(folder / f"{number}.tif", np.rint(dots + rng.normal(0, 1000, (64, 64))).astype(np.uint16))
    return folder


def test_a_net_that_wins_gets_no_advice_and_on_a_part_has_its_own_score_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    monkeypatch.setattr(filter_comparison, "SCORED_PX", 2 * 16 * 16)
    monkeypatch.setattr(filter_comparison, "net_of", lambda best, datamodule: two_levels)
    folder = write_dots(tmp_path / "frames")
    options = (f"data.root={folder}", f"data.cache_dir={tmp_path / 'cache'}")
    train_with(tmp_path / "run", "data=burst", *options, *ALL)
    lines = last_lines(capfd.readouterr().out)
    assert len(lines) == 1 and "on a part of the validation images: net " in lines[0]
    filters = read_json(tmp_path / "run/result.json")["filters"]
    assert filters.keys() == {*SCORED, "net"} and filters["net"].keys() == {"psnr_pairs"}
    assert filters["net"]["psnr_pairs"] > 39 > max(filters[name]["psnr_pairs"] for name in SCORED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["burst", "pairs", "clean"])
def test_the_nets_own_score_on_all_images_is_that_of_its_best_epoch(
    noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(filter_comparison, "score_filter", lambda *_: (1, 20.0))
    options = ["trainer.limit_val_batches=100", "trainer.max_epochs=3"]
    result = read_json(train_with(tmp_path / "run", *source(kind, noisy_images), *ALL, *options) / "result.json")
    key = "psnr" if kind == "clean" else "psnr_pairs"
    assert result["filters"]["net"][key] == pytest.approx(result[f"val/{key}"], abs=1e-4)


def test_a_batch_that_is_overfitted_is_not_compared(noisy_images: Path, tmp_path: Path):
    options = (*source("burst", noisy_images), *ALL, "data.overfit_steps=2", "trainer.max_epochs=1")
    assert "filters" not in read_json(train_with(tmp_path / "run", *options) / "result.json")


@pytest.mark.slow
def test_a_resumed_run_records_the_same_filters(trained_on: Trained, noisy_images: Path, tmp_path: Path):
    options = (*source("burst", noisy_images), *ALL)
    train_with(tmp_path / "run", *options, "trainer.max_epochs=1")
    train_with(tmp_path / "run", *options)
    once, twice = (read_json(run / "result.json") for run in (trained_on("burst"), tmp_path / "run"))
    assert once["filters"] == twice["filters"] and timeless(once) == timeless(twice)


@pytest.mark.slow
def test_a_run_stopped_while_filters_are_scored_is_finished_by_the_same_command(
    trained_on: Trained, noisy_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    options = (*source("burst", noisy_images), *ALL)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(filter_comparison, "score_filter", stop)
        train_with(tmp_path / "run", *options)
    assert read_json(tmp_path / "run/result.json")["status"] == "interrupted"
    train_with(tmp_path / "run", *options)
    once, twice = (read_json(run / "result.json") for run in (trained_on("burst"), tmp_path / "run"))
    assert timeless(once) == timeless(twice)
