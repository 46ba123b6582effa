"""``data.targets=clean``: what noisy targets are compared with; the same images, and the same validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numbered_images import load_all, make_data, numbered_image, origins, write
from small_runs import photo_data, read_json, tensors, train_with, write_photograph
from torch import Tensor

from n2n_lightning.data.clean import CleanData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import CellPairs
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.noise.pixelation import split_cells

Draws = Literal["fixed", "fresh"]
DRAWS = pytest.mark.parametrize("draws", ["fixed", "fresh"])


def clean(folder: Path, **settings: Any) -> CleanData:
    """Four images whose pixels say where they lie."""
    for scene in range(4):
        write(folder / f"root/{scene}.png", numbered_image(scene))
    noise = {"name": "gaussian", "sigma": 20}
    return make_data(CleanData, folder, **{"root": str(folder / "root"), "noise": noise} | settings)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the smallest number of photographs that can be split."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        write_photograph(folder / f"{number}.png", seed=number)
    return folder


# data=clean


@DRAWS
def test_the_target_is_the_crop_that_the_source_is_a_noisy_version_of(tmp_path: Path, draws: Draws):
    pair = load_all(clean(tmp_path, targets="clean", draws=draws), "train")
    assert pair.target is not None and pair.mask is None and pair.clean is None
    target = pair.target.round()
    assert (pair.target - target).abs().max() < 1e-3
    assert len(set(origins(target.byte()))) > 50
    off = (pair.source - pair.target).double()
    assert off.std().item() == pytest.approx(20, rel=0.03) and abs(off.mean()) < 5 * 20 / off.numel() ** 0.5


def test_a_pixelated_source_has_the_cells_means_for_a_target(tmp_path: Path):
    data = clean(tmp_path, targets="clean", noise={"name": "pixelate", "cell_px": 4}, crop_px=8)
    pair = load_all(data, "train")
    assert pair.target is not None and pair.target.shape == pair.source.shape == (64, 3, 8, 8)
    across = pair.target.diff(dim=-1)[:, 2]
    torch.testing.assert_close(across, torch.full_like(across, 4.0), atol=1e-3, rtol=0)  # columns are numbered
    off = pair.source - pair.target
    assert off[:, 0].abs().max() < 1e-3, "one number for the whole scene"
    assert set(off[:, 1].mul(2).round().unique().tolist()) == {-3, -1, 1, 3}, "of four rows, from their mean"


def test_a_target_without_noise_has_no_mask_and_swaps_with_nothing(tmp_path: Path):
    data = clean(tmp_path, targets="clean", noise={"name": "bernoulli"})
    assert load_all(data, "train").mask is None and not data.load("train").has_pairs
    with pytest.raises(ValueError, match="augment 'swap' needs two noisy images that are alike"):
        NoisyPairDataModule(data, augment=["swap"]).setup("fit")


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "text"])
def test_validation_is_as_with_noisy_targets_without_the_second_noisy_images(tmp_path: Path, name: str):
    noise = {"name": name}
    ours, theirs = (load_all(clean(tmp_path, targets=targets, noise=noise), "val") for targets in ("clean", "noisy"))
    assert ours.target is None
    for one, other in zip(ours, theirs._replace(target=None), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_a_run_with_clean_targets_learns_from_them(tmp_path: Path):
    """By the loss of weights that do not move: from noisy targets it has the targets' noise on top."""
    clean(tmp_path)
    options = (
        *("data=clean", f"data.root={tmp_path / 'root'}", f"data.cache_dir={tmp_path / 'cache'}", "data.crop_px=16"),
        *("model=convtrans_sigmoid", "optimizer.lr=1e-30", "trainer.max_epochs=1", "data.train_pairs=64"),
        *("trainer.accelerator=cpu", "noise.sigma=51", "data.draws=fixed"),
    )
    losses = {}
    for targets in ("noisy", "clean"):
        run = train_with(tmp_path / targets, *options, f"data.targets={targets}")
        result = read_json(run / "result.json")
        losses[targets] = float((run / "metrics.csv").read_text().splitlines()[1].split(",")[1])
        assert result["config"]["data"]["targets"] == targets
    assert losses["noisy"] - losses["clean"] == pytest.approx(0.2**2, rel=0.1)


# data=photos


@DRAWS
def test_photographs_targets_are_their_cells_rounded_means(photos: Path, tmp_path: Path, draws: Draws):
    cells = photo_data(photos, tmp_path, draws="fresh").load("train")
    assert isinstance(cells, CellPairs)
    expected = cells.cells.double().mean(3).round().permute(0, 3, 1, 2)
    data = photo_data(photos, tmp_path, draws=draws, targets="clean")
    source = data.load("train")
    pair = source.batch(torch.arange(8), seeded_generator(1))
    assert pair.target is not None and pair.target.dtype == torch.uint8 and not source.has_pairs
    assert torch.equal(pair.target.double(), expected)
    assert not torch.equal(pair.source, pair.target)
    pixels = cells.cells.permute(0, 4, 1, 2, 3)
    assert (pixels == pair.source[..., None]).any(-1).all(), "the source is drawn from its cells"


def test_clean_and_noisy_targets_of_photographs_share_a_source_and_validation(photos: Path, tmp_path: Path):
    noisy, other = (photo_data(photos, tmp_path, targets=targets) for targets in ("noisy", "clean"))
    assert torch.equal(tensors(noisy, "train").source, tensors(other, "train").source)
    assert not torch.equal(tensors(noisy, "train").target, tensors(other, "train").target)
    assert torch.equal(tensors(noisy, "val").source, tensors(other, "val").source)
    assert torch.equal(tensors(noisy, "val").clean, tensors(other, "val").clean)
    assert tensors(noisy, "train").has_pairs and not tensors(other, "train").has_pairs
    with pytest.raises(ValueError, match="augment 'swap' needs two noisy images"):
        NoisyPairDataModule(other, augment=["swap"]).setup("fit")


def test_cells_are_cut_as_reshaping_says():
    images = torch.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    cells = split_cells(images, 2)
    assert cells.shape == (2, 2, 3, 4, 3)
    for n, row, column, channel in np.ndindex(2, 2, 3, 3):
        expected = images[n, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
        assert torch.equal(cells[n, row, column, :, channel], expected)
