"""Arrays from Python: forms, refusals, and training without Hydra."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numbered_images import load_all, numbered_image, origins
from small_runs import smooth_images

from n2n_lightning import evaluate
from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import STAGES
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.models.families import SequentialDenoiser, UNetDenoiser
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.run import quiet_lightning


def arrays(**settings: Any) -> ArrayData:
    return ArrayData(**{"crop_px": 16, "train_pairs": 40, "val_pairs": 30} | settings)


def scenes(frame: int, count: int = 4) -> np.ndarray:
    """(N, H, W, 3)"""
    return np.stack([numbered_image(scene, frame) for scene in range(count)])


def forms(images: np.ndarray) -> dict[str, Any]:
    """Return the same images in each form that is accepted."""
    as_torch = torch.from_numpy(images).movedim(-1, 1) if images.ndim == 4 else torch.from_numpy(images)
    forms = {"numpy": images, "torch": as_torch, "contiguous": as_torch.contiguous()}
    return forms | {"list of numpy": list(images), "list of torch": list(as_torch), "tuple": tuple(images)}


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, None])
def test_every_form_gives_the_same_batches(channels: int | None):
    first, second = (scenes(frame) if channels else scenes(frame)[..., 1] + np.uint8(frame) for frame in (0, 1))
    for stage in STAGES:
        expected = load_all(arrays(source=first, target=second), stage)
        assert expected.source.shape[1:] == (channels or 1, 16, 16)
        for (name, one), (other_name, other) in itertools.product(forms(first).items(), forms(second).items()):
            found = load_all(arrays(source=one, target=other), stage)
            assert torch.equal(found.source, expected.source), name
            assert torch.equal(found.target, expected.target), other_name


def test_source_target_and_clean_are_of_one_place():
    data = arrays(source=scenes(0), target=scenes(1), clean=scenes(2))
    train, val = load_all(data, "train"), load_all(data, "val")
    found = [origins(images) for images in (val.source, val.target, val.clean)]
    assert [{o.frame for o in one} for one in found] == [{0}, {1}, {2}]
    assert [o.place for o in found[0]] == [o.place for o in found[1]] == [o.place for o in found[2]]
    assert train.clean is None and [o.place for o in origins(train.source)] == [o.place for o in origins(train.target)]
    assert {o.scene for o in origins(train.source)}.isdisjoint(o.scene for o in found[0])


def test_a_list_may_hold_images_of_any_size():
    sizes = [(20, 30), (40, 17), (16, 60), (33, 33)]
    first, second = ([numbered_image(scene, frame, *size) for scene, size in enumerate(sizes)] for frame in (0, 1))
    data = arrays(source=first, target=second, train_pairs=300)
    found = {o.scene for stage in STAGES for o in origins(load_all(data, stage).source)}
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("most", "dtype", "peak"),
    [(200, "uint8", 255), (4095, "uint16", 4095), (1.0, "float32", 1), (1.5, "float64", 2), (900, "int64", 1023)],
)
def test_the_range_is_found(most: float, dtype: str, peak: float):
    images = np.linspace(0, most, 4 * 32 * 32).reshape(4, 32, 32).astype(dtype)
    assert arrays(source=images, target=images[::-1]).peak == peak
    if dtype != "uint8":
        assert arrays(source=images, target=images[::-1], range=7).peak == 7


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("role", ["source", "target", "clean"])
def test_what_is_no_number_is_refused_and_named(role: str, bad: float):
    images = {name: np.ones((3, 32, 32), np.float32) for name in ("source", "target", "clean")}
    images[role][1, 4, 5] = bad
    with pytest.raises(ValueError, match=rf"^{role}\[1\] holds NaN or infinite values"):
        arrays(**images).load("train")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (np.ones((3, 32, 32)), np.ones((2, 32, 32)), "the same number of images, got {'source': 3, 'target': 2}"),
        (np.ones((3, 32, 32)), np.ones((3, 32, 33)), r"target\[0\] holds 33x32 px.*source\[0\] 32x32 px"),
        (np.ones((3, 32, 32)), np.ones((3, 32, 32), np.uint8), r"target\[0\] .* of uint8, source\[0\] .* of float"),
        (np.ones((32, 32)), np.ones((32, 32)), r"source\[0\] must be \(H, W\)"),
        (np.ones((3, 2, 2, 32, 32)), None, r"source\[0\] must be \(H, W\)"),
        (np.ones((3, 32, 32), bool), None, r"source\[0\] must be .* got \(32, 32\) of bool"),
        (np.ones((3, 0, 32)), None, r"source\[0\] must be .* got \(0, 32\)"),
        ([np.ones((32, 32)), np.ones((32, 32, 3))], None, r"source\[1\] holds 3 channels of float, others 1 channel"),
        (np.ones((3, 12, 32)), None, r"source\[0\] is 32x12 px, a crop 16x16"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(source: Any, target: Any, words: str):
    with pytest.raises(ValueError, match=words):
        arrays(source=source, target=target).load("train")


def test_whole_images_of_odd_sides_serve_for_single_images():
    images = smooth_images(4, 33, seed=0, channels=1)[:, 0]
    assert arrays(source=images, crop_px=None).load("train").image_shape == (1, 33, 33)


def test_the_fingerprint_is_of_the_values():
    images = np.random.default_rng(0).random((4, 32, 32))
    changed = images.copy()
    changed[3, 31, 31] += 1e-3
    of = [arrays(source=a).fingerprint() for a in (images, images.copy(), torch.from_numpy(images), changed)]
    assert of[0] == of[1] == of[2] != of[3]


# Training without Hydra


SEQUENTIAL = {"upsampling": "nearest", "activation": "sigmoid"}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "settings"), [(UNetDenoiser, {}), (SequentialDenoiser, SEQUENTIAL)])
@pytest.mark.parametrize(
    ("given", "loss", "monitor"),
    [
        (("target",), "l2", "val/psnr_pairs"),
        (("target", "clean"), "l1", "val/psnr"),
        ((), "neighbor2neighbor", "val/loss"),
        (("clean",), "neighbor2neighbor", "val/psnr"),
    ],
)
def test_a_plain_trainer_trains_on_arrays(
    tmp_path: Path,
    family: type[DenoiserModule],
    settings: dict[str, str],
    given: tuple[str, ...],
    loss: str,
    monitor: str,
):
    clean = torch.from_numpy(smooth_images(4, 32, seed=1)).float() / 255
    rng = seeded_generator(0)
    noisy = {name: clean + 0.1 * torch.randn(clean.shape, generator=rng) for name in ("source", "target")}
    data = arrays(range=1.0, **{k: v for k, v in (noisy | {"clean": clean}).items() if k in ("source", *given)})
    module: DenoiserModule = family(optimizer={"name": "adam", "lr": 1e-3}, loss={"name": loss}, channels=3, **settings)
    datamodule = NoisyPairDataModule(data, batch_size=8, augment=["flip", "rotate"])
    quiet_lightning()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, **quiet, enable_model_summary=False)
    before = [parameter.clone() for parameter in module.parameters()]
    trainer.fit(module, datamodule)
    assert datamodule.monitor == monitor and np.isfinite(float(trainer.callback_metrics[monitor]))
    assert ("val/psnr" in trainer.callback_metrics) == ("clean" in given)
    assert ("val/psnr_pairs" in trainer.callback_metrics) == ("target" in given)
    assert ("val/loss_floor" in trainer.callback_metrics) == (given == ("target",))
    assert not all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("trained_on", "peak", "dtype", "used"),
    [
        ("uint8", 255.0, "float32", 2.0),
        ("uint8", 255.0, "uint16", 1023.0),
        ("uint16", 4095.0, "uint16", 4095.0),
        ("uint16", 4095.0, "int32", 4095.0),
        ("uint16", 4095.0, "uint8", 255.0),
        ("uint16", 4095.0, "float32", 2.0),
        ("float", 1.0, "float64", 1.0),
        ("float", 1.0, "uint16", 1023.0),
    ],
)
def test_scoring_takes_the_trainings_range_for_values_of_its_kind(
    trained_on: str, peak: float, dtype: str, used: float
):
    most = 1.5 if "float" in dtype else 200 if dtype == "uint8" else 900
    images = np.linspace(0, most, 4 * 32 * 32).reshape(4, 32, 32).astype(dtype)
    data, module = (
        arrays(source=images, target=images[::-1]),
        SimpleNamespace(peak=peak, sample_type=trained_on, reach=None),
    )
    evaluate.take_range(data, cast(Any, module))
    assert data.peak == used
    given = arrays(source=images, target=images[::-1], range=255 if dtype == "uint8" else 700)
    evaluate.take_range(given, cast(Any, module))
    assert given.peak == given.range


def test_axes_are_for_files():
    with pytest.raises(ValueError, match="axes are for files, got 'TYX'; move the axes"):
        ArrayData(source=np.zeros((2, 16, 16)), axes="TYX")


def test_frames_that_differ_are_named_with_the_argument_that_corrects_them():
    rng = np.random.default_rng(0)
    scene = np.kron(rng.uniform(0, 200, (16, 16)), np.ones((8, 8)))
    first, second = (rng.normal(gain * scene, 5)[None] for gain in (1, 0.5))
    data = ArrayData(source=first, target=second, crop_px=16)
    data.load("train")
    assert "brightness: target[0] (gain 0.5" in data.warnings[0]
    assert data.warnings[0].endswith("ArrayData(..., match_levels=True) corrects it")
