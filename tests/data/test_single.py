"""``data=single``: the crops, their seeds, and the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from numbered_images import load_all, make_data, numbered_image, origins, write
from torch import Tensor

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.data.single import SingleData
from n2n_lightning.models.families import SequentialDenoiser
from n2n_lightning.training.run import quiet_lightning


def single(folder: Path, **settings: Any) -> SingleData:
    return make_data(SingleData, folder, root=str(folder / "root"), **settings)


def write_scenes(folder: Path, count: int, **size: int) -> None:
    for scene in range(count):
        write(folder / f"{scene}.png", numbered_image(scene, **size))


def test_crops_are_single_images_with_seeds_and_validations_are_the_same_for_any_batch(tmp_path: Path):
    write_scenes(tmp_path / "root", 4)
    data = single(tmp_path, val_fraction=0.5)
    train, val = data.load("train"), data.load("val")
    assert (train.has_pairs, train.has_clean, train.image_shape) == (False, False, (3, 16, 16))
    pair = train.batch(torch.arange(64), seeded_generator(0))
    assert pair.target is pair.clean is pair.third is None
    assert pair.seeds is not None and pair.seeds.shape == (1,), "one for the batch"
    again, other = (train.batch(torch.arange(64), seeded_generator(seed)) for seed in (0, 1))
    assert torch.equal(pair.seeds, again.seeds) and not torch.equal(pair.seeds, other.seeds)

    at_once = load_all(data, "val")
    assert {o.scene for o in origins(at_once.source)}.isdisjoint(o.scene for o in origins(pair.source))
    parts = [val.batch(indices, seeded_generator(9)) for indices in torch.arange(len(val)).split(5)]
    assert len(parts) > 1
    assert torch.equal(torch.cat([part.seeds for part in parts if part.seeds is not None]), at_once.seeds)
    assert torch.equal(torch.cat([part.source for part in parts]), at_once.source)
    assert len(at_once.seeds.unique()) == len(val), "not the same for all crops"


def test_a_lone_image_is_cut_in_two(tmp_path: Path):
    write_scenes(tmp_path / "root", 1, height=80)
    data = single(tmp_path, train_pairs=200)
    assert max(o.top for o in origins(load_all(data, "train").source)) == 64 - 16
    assert {o.top for o in origins(load_all(data, "val").source)} == {64}


def test_a_file_may_stand_for_its_folder(tmp_path: Path):
    write_scenes(tmp_path / "root", 2, height=80)
    file = tmp_path / "root/0.png"
    data = make_data(SingleData, tmp_path, root=str(file), train_pairs=20)
    assert {o.scene for o in origins(load_all(data, "train").source)} == {0}


def test_the_loss_decides_which_epoch_is_best(tmp_path: Path):
    """Two halves of one image are not independent, so that they are no measure of quality."""
    write_scenes(tmp_path / "root", 2)
    datamodule = NoisyPairDataModule(single(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/loss"


@pytest.mark.parametrize("crop_px", [15, None])
def test_crops_may_have_odd_sides_and_be_whole_images(tmp_path: Path, crop_px: int | None):
    write_scenes(tmp_path / "root", 2, height=17, width=19)
    size = tuple(
        single(tmp_path, crop_px=crop_px).load("train").batch(torch.arange(2), seeded_generator(0)).source.shape
    )
    assert size == (2, 3, *((17, 19) if crop_px is None else (15, 15)))


def progress_in_training(monkeypatch: pytest.MonkeyPatch, data: SingleData, **limits: Any) -> list[float]:
    """Train by a loss that is told the progress, and return what it was told, in training and validation."""
    module = SequentialDenoiser(
        optimizer={"name": "sgd", "lr": 0.01}, loss={"name": "neighbor2neighbor", "gamma": 2}, channels=3
    )
    seen, loss = [], module.loss

    def watched(net: Any, noisy: Tensor, seeds: Tensor, *, progress: float) -> Tensor:
        seen.append(progress)
        return loss(net, noisy, seeds, progress=progress)

    monkeypatch.setitem(module.__dict__, "loss", watched)
    quiet_lightning()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(**limits, **quiet, num_sanity_val_steps=0, enable_model_summary=False)
    trainer.fit(module, NoisyPairDataModule(data, batch_size=2))
    return seen


def test_the_loss_is_told_the_progress_and_validation_is_the_same_in_all_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_scenes(tmp_path / "root", 2)
    data = single(tmp_path, train_pairs=4, val_pairs=2)
    assert progress_in_training(monkeypatch, data, max_epochs=2) == [0, 0.25, 0, 0.5, 0.75, 0]
    assert progress_in_training(monkeypatch, data, max_steps=2, max_epochs=-1) == [0, 0.5, 0]
