"""Synthetic noise: its moments, what depends on what when it is drawn, and ``data=clean`` around it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coded import Array, coded, made, origins, whole, write
from tiny import compose_config
from torch import Tensor

from n2n_lightning.datamodule import NoisyPairDataModule, generator
from n2n_lightning.noise import NOISES, Gaussian, Noise, Pixelate, Poisson
from n2n_lightning.pairs import NoisyPair
from n2n_lightning.sources.clean import CleanData

MODELS = [Gaussian(30), Poisson(20), Pixelate(4)]


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.double().flatten(), other.double().flatten())[0, 1])


# The corruptions


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("noise", [Gaussian(25), Poisson(30), Poisson(2.5)])
def test_mean_and_variance_are_as_they_should_and_nothing_is_clipped(noise: Noise, level: float):
    count = 2_000_000
    drawn = noise.draw(torch.full((100, 2, 100, 100), level), generator(1)).double()
    variance = (noise.sigma / 255) ** 2 if isinstance(noise, Gaussian) else level / noise.lam
    assert abs(drawn.mean() - level) <= 5 * (variance / count) ** 0.5
    # of a Poisson's variance the standard error is a little over that of a Gaussian's, by 1 / (2 x mean count)
    excess = 0 if isinstance(noise, Gaussian) or not level else 1 / (2 * level * noise.lam)
    assert abs(drawn.var() - variance) <= 5 * variance * ((2 / count) * (1 + excess)) ** 0.5
    if variance and level in (0, 1):
        assert drawn.min() < 0 if level == 0 else drawn.max() > 1


def test_photons_come_in_whole_numbers_and_below_black_there_are_none():
    images = torch.linspace(-0.5, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    counts = Poisson(8).draw(images, generator(0)) * 8
    assert torch.equal(counts, counts.round()) and (counts[images <= 0] == 0).all() and counts.max() > 8


@pytest.mark.parametrize("noise", MODELS)
def test_noise_is_white_and_two_draws_are_independent(noise: Noise):
    images = torch.rand(6, 3, 64, 64, generator=generator(5))
    rng = generator(2)
    clean = noise.clean(images)
    first, second = (noise.draw(images, rng) - clean for _ in range(2))
    assert first.std() > 0.01
    bound = 5 / first[:, 0].numel() ** 0.5
    assert abs(correlation(first, second)) < bound
    for one, other in ((first[..., 1:], first[..., :-1]), (first[..., 1:, :], first[..., :-1, :])):
        assert abs(correlation(one, other)) < bound


@pytest.mark.parametrize("noise", MODELS)
def test_the_same_generator_draws_the_same(noise: Noise):
    images = torch.rand(2, 3, 16, 16, generator=generator(5))
    before = images.clone()
    one, same, other = (noise.draw(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == torch.float32 and torch.equal(images, before)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (19, 25)])  # the latter leaves 3 rows and a column over
def test_a_pixelated_pixel_is_one_of_its_cell_and_the_clean_one_their_mean(height: int, width: int):
    images = torch.rand(1, 3, height, width, generator=generator(0))
    noise = Pixelate(8)
    cells = images.numpy()[0, :, :16, :24].reshape(3, 2, 8, 3, 8).transpose(1, 3, 2, 4, 0).reshape(2, 3, 64, 3)
    draws = noise.draw(images.expand(4000, -1, -1, -1), generator(1))
    assert draws.shape == (4000, 3, 2, 3)
    shown = draws[:50].permute(0, 2, 3, 1).numpy()
    assert (cells == shown[:, :, :, None]).all(-1).any(-1).all(), "R, G and B of one place"
    mean = cells.mean(2).transpose(2, 0, 1)
    np.testing.assert_allclose(noise.clean(images)[0], mean, atol=1e-6)
    spread = cells.std(2).transpose(2, 0, 1)
    assert (np.abs(draws.double().mean(0).numpy() - mean) < 5 * spread / np.sqrt(4000)).all()


# data=clean


def clean(folder: Path, **settings: Any) -> CleanData:
    return made(CleanData, folder, **{"root": str(folder / "root"), "noise": {"name": "gaussian"}} | settings)


def write_flat(folder: Path, level: int = 128, count: int = 4, dtype: type[np.generic] = np.uint8) -> None:
    """Images that differ in one pixel only; 48x48x3."""
    for number in range(count):
        pixels: Array = np.full((48, 48, 3), level, dtype)
        pixels[0, 0, 0] = number
        write(folder / f"{number}.npy", pixels)


def equal(one: NoisyPair, other: NoisyPair) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def test_crops_are_of_one_place_and_validation_has_the_clean_one(tmp_path: Path):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", coded(scene))
    data = clean(tmp_path, noise={"name": "gaussian", "sigma": 0.001})
    train, val = (whole(data, stage) for stage in ("train", "val"))
    assert train.clean is None and train.group is None
    trained = [origins(images.round().byte()) for images in (train.source, train.target)]
    scored = [origins(images.round().byte()) for images in (val.source, val.target, val.clean)]
    assert trained[0] == trained[1] and len(set(trained[0])) > 50
    assert scored[0] == scored[1] == scored[2]
    assert {o.scene for o in trained[0]}.isdisjoint(o.scene for o in scored[0])
    assert torch.equal(val.clean, val.clean.round()), "without noise"


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
@pytest.mark.parametrize("stage", ["train", "val"])
@pytest.mark.parametrize("noise", [{"name": "gaussian"}, {"name": "poisson"}])
def test_the_two_noises_are_independent_of_each_other_and_from_crop_to_crop(
    tmp_path: Path, draws: str, stage: Any, noise: dict[str, Any]
):
    write_flat(tmp_path / "root")
    pair = whole(clean(tmp_path, draws=draws, noise=noise, val_fraction=0.5), stage)
    first, second = ((images - 128)[:, 1:] for images in (pair.source, pair.target))  # without the pixel that differs
    sigma = 25 if noise["name"] == "gaussian" else 255 * (128 / 255 / 30) ** 0.5
    for images in (first, second):
        assert images.std() == pytest.approx(sigma, rel=0.05) and abs(images.mean()) < 5 * sigma / images.numel() ** 0.5
    assert abs(correlation(first, second)) < 5 / first.numel() ** 0.5
    for one, other in pairwise([*first, *second]):
        assert abs(correlation(one, other)) < 5 / one.numel() ** 0.5


def test_fresh_noise_and_places_follow_the_batchs_generator(tmp_path: Path):
    write_flat(tmp_path / "root")
    source = clean(tmp_path).load("train")
    first, again, other = (source.batch(torch.arange(8), generator(0, epoch, 0)) for epoch in (0, 0, 1))
    assert equal(first, again) and not torch.equal(first.source, other.source)


@pytest.mark.parametrize("noise", [{"name": "gaussian"}, {"name": "poisson"}, {"name": "pixelate", "cell_px": 3}])
def test_fixed_noise_and_places_are_the_same_for_any_batch_and_epoch(tmp_path: Path, noise: dict[str, Any]):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", coded(scene))
    settings = {"draws": "fixed", "noise": noise, "crop_px": 8}
    source = clean(tmp_path, **settings).load("train")
    at_once = source.batch(torch.arange(64), generator(0))
    parts = [source.batch(indices, generator(7, int(indices[0]))) for indices in torch.arange(64).split(5)]
    assert torch.equal(torch.cat([p.source for p in parts]), at_once.source)
    assert torch.equal(torch.cat([p.target for p in parts]), at_once.target)
    assert len(at_once.source.unique(dim=0)) > 50, "not the same for all crops"
    assert not torch.equal(at_once.source, whole(clean(tmp_path, seed=1, **settings), "train").source)


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
def test_validation_does_not_depend_on_its_batch_size_nor_on_the_epoch(tmp_path: Path, draws: str):
    write_flat(tmp_path / "root")
    seen = []
    for size in (1, 5, 100):
        datamodule = NoisyPairDataModule(clean(tmp_path, draws=draws, val_fraction=0.5), val_batch_size=size)
        datamodule.setup("validate")
        for _ in range(2):
            batches = list(datamodule.val_dataloader())
            seen.append(NoisyPair(*(None if p[0] is None else torch.cat(p) for p in zip(*batches, strict=True))))
    assert len(seen[0].source) == 2 * 9 and all(equal(one, seen[0]) for one in seen)
    assert equal(seen[0], whole(clean(tmp_path, val_fraction=0.5), "val")), (
        "the same for fresh and fixed training noise"
    )


def test_validations_noise_is_not_trainings(tmp_path: Path):
    write_flat(tmp_path / "root")
    data = clean(tmp_path, draws="fixed")
    train, val = (torch.cat(whole(data, stage)[:2])[:, 1] for stage in ("train", "val"))
    assert not any(torch.equal(one, other) for one in train for other in val)


def test_the_strength_is_in_units_of_the_range(tmp_path: Path):
    write_flat(tmp_path / "root", level=2000, dtype=np.uint16)
    data = clean(tmp_path, range=4095, train_pairs=200)
    noise = whole(data, "train").source[:, 1] - 2000
    sigma = 25 / 255 * 4095
    assert noise.std() == pytest.approx(sigma, rel=0.03) and abs(noise.mean()) < 5 * sigma / noise.numel() ** 0.5


def test_pixelation_reads_what_it_makes_crops_of(tmp_path: Path):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", coded(scene))
    data = clean(tmp_path, noise={"name": "pixelate", "cell_px": 3}, crop_px=4)
    source, pair = data.load("val"), whole(data, "val")
    assert source.image_shape == (3, 4, 4) and len(source) == 3 * 4  # of 12x12 px in 40x48
    assert pair.clean is not None and pair.clean.shape == (12, 3, 4, 4)
    steps = pair.clean.diff(dim=-1)[:, 2]
    torch.testing.assert_close(steps, torch.full_like(steps, 3.0), atol=1e-3, rtol=0)  # columns are numbered
    assert (pair.clean[:, 1:] % 3 - 1).abs().max() < 1e-3, "cells of 3 begin at multiples of 12"
    off = torch.stack([pair.source, pair.target]) - pair.clean
    assert off[:, :, 1:].abs().max() < 1.001 and off[:, :, 1:].abs().max() > 0.9
    train = whole(data, "train")
    assert train.source.shape == (64, 3, 4, 4)
    assert (train.source - train.target)[:, 1:].abs().max() <= 2.001, "of one place"


def test_whole_images_are_pixelated_without_what_is_left_over(tmp_path: Path):
    for scene in range(3):
        write(tmp_path / f"root/{scene}.png", coded(scene))
    data = clean(tmp_path, noise={"name": "pixelate", "cell_px": 7}, crop_px=None)
    assert data.load("train").image_shape == (3, 5, 6)
    assert [images.shape for images in whole(data, "val")[:3]] == [(1, 3, 5, 6)] * 3


def test_a_file_in_both_sets_is_refused(tmp_path: Path):
    write_flat(tmp_path / "root")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/other name.npy").write_bytes((tmp_path / "root/2.npy").read_bytes())
    data = clean(tmp_path, val_root=str(tmp_path / "val"))
    with pytest.raises(ValueError, match=re.escape("other name.npy is among the training images too")):
        data.load("train")


def test_clean_images_decide_which_epoch_is_best(tmp_path: Path):
    write_flat(tmp_path / "root")
    datamodule = NoisyPairDataModule(clean(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/psnr"


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_has_a_configuration_with_its_defaults(name: str):
    settings = compose_config(f"noise={name}", "data=clean", "data.root=there")["noise"]
    assert settings.pop("name") == name and NOISES[name](**settings) == NOISES[name]()
