"""``data.resident``: all images in the memory of the device that trains; the CPU's gives the same run as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Trained
from noisy_files import ALL, MONITORS, source
from numbered_images import write
from small_runs import (
    assert_same_weights,
    compose_settings,
    photo_data,
    read_json,
    timeless_table,
    train_in,
    train_with,
)

from n2n_lightning.data.clean import CleanPairs
from n2n_lightning.data.crops import CropWindows
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.device_cache import DeviceImages, read_crops
from n2n_lightning.data.pairs import CellPairs, NoisyPair
from n2n_lightning.data.scenes import StackImage
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.training.build import build_datamodule

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(MONITORS))
def test_a_resident_run_is_the_same_on_the_cpu(
    trained_on: Trained, noisy_images: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    counts, crops = [], DeviceImages.crops

    def counted(self: DeviceImages, images: list[StackImage], windows: CropWindows) -> torch.Tensor:
        counts.append(len(images))
        return crops(self, images, windows)

    monkeypatch.setattr(DeviceImages, "crops", counted)
    run = train_with(tmp_path / "run", *source(kind, noisy_images), *ALL, "data.resident=true")
    assert counts
    assert_same_weights(run / "checkpoints/last.ckpt", trained_on(kind) / "checkpoints/last.ckpt")
    assert timeless_table(run) == timeless_table(trained_on(kind))


@pytest.mark.slow
def test_so_is_one_on_stored_pairs(course_data: Path, four_epochs: Path, tmp_path: Path):
    run = train_in(tmp_path / "run", course_data, "model=convtrans_relu", "trainer.max_epochs=4", "data.resident=true")
    assert_same_weights(run / "checkpoints/last.ckpt", four_epochs / "checkpoints/last.ckpt")


def test_and_fresh_draws_from_cells(photographs: Path, tmp_path: Path):
    cells = photo_data(photographs, tmp_path, draws="fresh").load("train")
    assert isinstance(cells, CellPairs)
    indices = torch.tensor([3, 0, 5])
    before = cells.batch(indices, seeded_generator(1, 2))
    cells.to(CPU)
    after = cells.batch(indices, seeded_generator(1, 2))
    assert torch.equal(before.source, after.source) and torch.equal(before.target, after.target)
    assert cells.nbytes == 8 * 32 * 32 * 64 * 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_crops_out_of_memory_are_those_out_of_files(tmp_path: Path, dtype: str):
    from n2n_lightning.image_io.stack import open_stack

    rng = np.random.default_rng(0)
    images = []
    for number, (height, width) in enumerate([(20, 31), (17, 23), (40, 16)]):
        path = tmp_path / f"{number}.npy"
        write(path, rng.uniform(0, 200, (2, height, width, 3)).astype(dtype))
        images += [StackImage(open_stack(path, tmp_path / "cache"), page) for page in (0, 1)]
    chosen = [images[i] for i in (4, 0, 3, 3)]
    sizes = np.array([image.stack.shape[1:3] for image in chosen])
    windows = CropWindows(np.zeros(4, int), sizes[:, 0] - 9, np.array([1, 0, sizes[2, 1] - 7, 5]), 9, 7)
    crops = DeviceImages(images, CPU).crops(chosen, windows)
    expected = read_crops(chosen, windows)
    assert torch.equal(crops, expected) and crops.dtype == expected.dtype
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_images_are_read_once_and_noise_that_follows_from_a_seed_is_drawn_on_the_cpu(noisy_images: Path):
    module = build_datamodule(compose_settings(*source("clean", noisy_images), *ALL))
    module.setup("fit")
    train, val = (module.sources[part] for part in ("train", "val"))
    assert isinstance(train, CleanPairs) and isinstance(val, CleanPairs)
    assert train.nbytes == 3 * 48 * 48 * 3 and val.nbytes == 0
    for part in (train, val):
        part.to(CPU)
    moved = train.device_images
    train.to(CPU)
    assert moved is not None and train.device_images is moved and val.device_images is None


def test_all_that_a_batch_knows_is_moved(course_data: Path):
    module = build_datamodule(compose_settings("data=ee559", f"data.root={course_data}"))
    images = torch.zeros(2, 3, 4, 4)
    pair = NoisyPair(images, None, images, group=torch.arange(2), mask=images[:, :1] > 0)
    moved = module.transfer_batch_to_device(pair, torch.device("meta"), 0)
    assert all((x is None) == (y is None) for x, y in zip(pair, moved, strict=True))
    assert {x.device.type for x in moved if isinstance(x, torch.Tensor)} == {"meta"}


def test_workers_and_resident_images_do_not_go_together(course_data: Path):
    with pytest.raises(ValueError, match=r"resident data needs no workers, got num_workers=2; set data.num_workers=0"):
        build_datamodule(
            compose_settings("data=ee559", f"data.root={course_data}", "data.resident=true", "data.num_workers=2")
        )


@pytest.mark.parametrize(("room", "moves"), [(4.1, True), (3.9, False)])
def test_on_cuda_images_move_where_they_fit(
    course_data: Path, monkeypatch: pytest.MonkeyPatch, room: float, moves: bool
):
    class Strategy:
        root_device = torch.device("cuda", 0)

    class Trainer:
        strategy = Strategy()

    module = build_datamodule(compose_settings("data=ee559", f"data.root={course_data}"))
    assert isinstance(module, NoisyPairDataModule)
    module.setup("fit")
    stored = (96 + 24) * 2 * 3 * 16 * 16
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, int(room * stored)))
    module.trainer = Trainer()  # type: ignore[assignment]  # all that is asked of it
    assert (module.resident_device is not None) == moves


# On an accelerator


CUDA = ("trainer.accelerator=gpu", "data.resident=true")


@pytest.mark.cuda
@pytest.mark.parametrize("more", [[], ["data.augment=[flip,rotate]"], ["trainer.precision=bf16-mixed"]], ids=str)
@pytest.mark.parametrize("kind", sorted(MONITORS))
def test_every_source_trains_on_cuda(noisy_images: Path, tmp_path: Path, kind: str, more: list[str]):
    run = train_with(tmp_path / "run", *source(kind, noisy_images), *ALL, *CUDA, *more)
    assert len(timeless_table(run)) == 2


@pytest.mark.cuda
@pytest.mark.parametrize("noise", ["brown", "bernoulli", "impulse", "poisson", "text"])
@pytest.mark.parametrize("draws", ["fixed", "fresh"])
def test_every_noise_is_drawn_on_cuda(noisy_images: Path, tmp_path: Path, noise: str, draws: str):
    overrides = (*source("clean", noisy_images), *ALL, *CUDA, f"noise={noise}", f"data.draws={draws}")
    assert len(timeless_table(train_with(tmp_path / "run", *overrides))) == 2


@pytest.mark.cuda
def test_validations_noise_is_the_cpus(noisy_images: Path, tmp_path: Path):
    overrides = (*source("clean", noisy_images), *ALL, "data.resident=true")
    runs = [train_with(tmp_path / name, *overrides, f"trainer.accelerator={name}") for name in ("cpu", "gpu")]
    first, second = (read_json(run / "result.json")["noisy_psnr"] for run in runs)
    assert first == pytest.approx(second, abs=1e-4)
