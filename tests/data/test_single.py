"""Neighbor2Neighbor: the sub-images and the loss against the paper, and ``data=single`` around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from numbered_images import load_all, make_data, numbered_image, origins, write
from torch import Tensor

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.neighbors import draw_choice, regularised_loss, subsample
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.data.single import SingleData
from n2n_lightning.losses import l1, l2
from n2n_lightning.models.families import SequentialDenoiser
from n2n_lightning.training.run import quiet_lightning

Floats = npt.NDArray[np.float64]
NEIGHBOURS = {(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)}  # in a cell of 0 1 / 2 3

# The sub-images


def test_the_eight_choices_are_the_eight_ordered_pairs_of_neighbours():
    cell = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 1, 2, 2).expand(8, -1, -1, -1)
    first, second = subsample(cell, torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1))
    pairs = list(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
    assert len(pairs) == 8 and set(pairs) == NEIGHBOURS


def by_loops(images: Floats, choice: Tensor) -> tuple[Floats, Floats]:
    """Return the sub-images of (N, C, H, W), cell by cell."""
    pixels = [(0, 0), (0, 1), (1, 0), (1, 1)]
    one_cell = torch.arange(4.0).reshape(1, 1, 2, 2)
    order = [
        tuple(int(half.item()) for half in subsample(one_cell, torch.tensor([[[k]]]))) for k in range(8)
    ]  # which choice is which pair is nobody's business
    n, channels, height, width = images.shape
    halves = np.zeros((2, n, channels, height // 2, width // 2))
    for image, row, column in np.ndindex(n, height // 2, width // 2):
        for half, pixel in enumerate(order[int(choice[image, row, column])]):
            down, across = pixels[pixel]
            halves[half, image, :, row, column] = images[image, :, 2 * row + down, 2 * column + across]
    return halves[0], halves[1]


def random_images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images and a choice for them."""
    rng = seeded_generator(4)
    images = torch.rand(shape, generator=rng)
    return images, draw_choice(shape[0], *shape[2:], rng)


def test_each_cell_has_its_own_choice_which_all_channels_share():
    images, choice = random_images(3, 2, 6, 8)
    first, second = subsample(images, choice)
    expected = by_loops(images.double().numpy(), choice)
    np.testing.assert_allclose(first, expected[0], rtol=1e-6)
    np.testing.assert_allclose(second, expected[1], rtol=1e-6)


def test_all_choices_are_drawn_equally_often():
    choice = draw_choice(10, 40, 40, seeded_generator(0))
    assert choice.shape == (10, 20, 20)
    counts = np.bincount(choice.flatten(), minlength=8)
    # 500 each; chi-squared with 7 degrees of freedom: above 37 once in 200,000 tries, and the seed is fixed
    assert len(counts) == 8 and ((counts - 500) ** 2 / 500).sum() < 37


# The loss


def test_the_loss_is_the_papers():
    """Equations 6 and 7: |f(g1 y) - g2 y|^2 + gamma |f(g1 y) - g2 y - (g1 f(y) - g2 f(y))|^2, as means."""
    images, choice = random_images(2, 3, 8, 6)
    y = images.double().numpy()

    def f(x: Any) -> Any:
        shifted = x.roll(1, -1) if isinstance(x, Tensor) else np.roll(x, 1, -1)
        return 0.7 * x + 0.1 * shifted + 0.05

    g1, g2 = by_loops(y, choice)
    g1f, g2f = by_loops(f(y), choice)
    fit = np.mean((f(g1) - g2) ** 2)
    regulariser = np.mean((f(g1) - g2 - (g1f - g2f)) ** 2)
    for weight in (0.0, 0.5, 2.0):
        found = regularised_loss(f, l2, images, choice, weight).item()
        assert found == pytest.approx(fit + weight * regulariser, rel=1e-5)
    assert regulariser > 0.01
    assert regularised_loss(f, l1, images, choice, 0).item() == pytest.approx(np.mean(np.abs(f(g1) - g2)), rel=1e-5)


def test_no_gradient_flows_through_the_whole_image():
    """With f(y) = a y, and b for a where it is not trained: of (a g1 - g2)^2 + w (a g1 - g2 - b (g1 - g2))^2."""
    images, choice = random_images(2, 1, 8, 8)
    a = torch.tensor(0.6, requires_grad=True)
    regularised_loss(lambda x: a * x, l2, images, choice, 3.0).backward()
    g1, g2 = by_loops(images.double().numpy(), choice)
    expected = np.mean(2 * (0.6 * g1 - g2) * g1) + 3 * np.mean(2 * (0.6 * g1 - g2 - 0.6 * (g1 - g2)) * g1)
    assert a.grad is not None and a.grad.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("weight", "sizes"), [(0.0, [4]), (1.0, [4, 8])])
def test_without_a_weight_the_net_runs_once(weight: float, sizes: list[int]):
    images, choice = random_images(2, 1, 8, 8)
    seen = []

    def net(x: Tensor) -> Tensor:
        seen.append(x.shape[-1])
        return x

    regularised_loss(net, l2, images, choice, weight)
    assert seen == sizes


def weights_in_training(monkeypatch: pytest.MonkeyPatch, data: SingleData, **limits: Any) -> list[float]:
    module = SequentialDenoiser(
        optimizer={"name": "sgd", "lr": 0.01}, loss={"name": "neighbor2neighbor", "gamma": 2}, channels=3
    )
    seen, single_loss = [], module.single_loss

    def watched(pair: Any, weight: float) -> Tensor:
        seen.append(weight)
        return single_loss(pair, weight)

    monkeypatch.setattr(module, "single_loss", watched)
    quiet_lightning()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(**limits, **quiet, num_sanity_val_steps=0, enable_model_summary=False)
    trainer.fit(module, NoisyPairDataModule(data, batch_size=2))
    return seen


def test_the_weight_rises_to_gamma_and_validation_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_scenes(tmp_path / "root", 2)
    data = single(tmp_path, train_pairs=2, val_pairs=2)
    assert weights_in_training(monkeypatch, data, max_epochs=4) == [0.5, 0, 1.0, 0, 1.5, 0, 2.0, 0]
    assert weights_in_training(monkeypatch, data, max_steps=2) == [2, 0, 2, 0], "where nobody knows the end"


# data=single


def single(folder: Path, **settings: Any) -> SingleData:
    return make_data(SingleData, folder, root=str(folder / "root"), **settings)


def write_scenes(folder: Path, count: int, **size: int) -> None:
    for scene in range(count):
        write(folder / f"{scene}.png", numbered_image(scene, **size))


def test_crops_are_single_images_with_a_choice_and_validations_is_the_same_for_any_batch(tmp_path: Path):
    write_scenes(tmp_path / "root", 4)
    data = single(tmp_path, val_fraction=0.5)
    train, val = data.load("train"), data.load("val")
    assert (train.has_pairs, train.has_clean, train.image_shape) == (False, False, (3, 16, 16))
    pair = train.batch(torch.arange(64), seeded_generator(0))
    assert pair.target is pair.clean is pair.third is None
    assert pair.choice is not None and pair.choice.shape == (64, 8, 8)
    again, other = (train.batch(torch.arange(64), seeded_generator(seed)) for seed in (0, 1))
    assert torch.equal(pair.choice, again.choice) and not torch.equal(pair.choice, other.choice)

    at_once = load_all(data, "val")
    assert {o.scene for o in origins(at_once.source)}.isdisjoint(o.scene for o in origins(pair.source))
    parts = [val.batch(indices, seeded_generator(9)) for indices in torch.arange(len(val)).split(5)]
    assert len(parts) > 1
    assert torch.equal(torch.cat([part.choice for part in parts if part.choice is not None]), at_once.choice)
    assert torch.equal(torch.cat([part.source for part in parts]), at_once.source)
    assert len(at_once.choice.unique(dim=0)) == len(val), "not the same for all crops"


def test_a_lone_image_is_cut_in_two(tmp_path: Path):
    write_scenes(tmp_path / "root", 1, height=80)
    data = single(tmp_path, train_pairs=200)
    assert max(o.top for o in origins(load_all(data, "train").source)) == 64 - 16
    assert {o.top for o in origins(load_all(data, "val").source)} == {64}


def test_the_loss_decides_which_epoch_is_best(tmp_path: Path):
    """Two halves of one image are not independent, so that they are no measure of quality."""
    write_scenes(tmp_path / "root", 2)
    datamodule = NoisyPairDataModule(single(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/loss"


@pytest.mark.parametrize("crop_px", [15, None])
def test_crops_that_have_no_halves_are_refused(tmp_path: Path, crop_px: int | None):
    with pytest.raises(ValueError, match=f"crop_px must be even for data=single, got {crop_px}"):
        single(tmp_path, crop_px=crop_px)
