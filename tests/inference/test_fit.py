"""``Denoiser.fit``: forms and ranges of arrays, what it starts from, lengths, refusals, saving."""

from __future__ import annotations

import doctest
import pydoc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_runs import run_python, smooth_images

from n2n_lightning import Denoiser
from n2n_lightning.data.array_forms import as_nhwc, find_axes, from_nhwc
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.trained import GENERAL, find_trained

Images = npt.NDArray[Any]
NET = "convtrans_relu"
QUICK: dict[str, Any] = {"epochs": 1, "progress": False, "device": "cpu"}
needs_general = pytest.mark.skipif(GENERAL not in find_trained(), reason="weights/general is not installed")


def noisy_pairs(count: int = 12, channels: int = 3) -> tuple[Images, Images, Images]:
    """Return two noisy versions of images, and the clean ones: (N, 32, 32, C) uint8."""
    rng = np.random.default_rng(0)
    clean = smooth_images(count, 32, seed=0, channels=channels).transpose(0, 2, 3, 1)
    noisy = [np.clip(clean + rng.normal(0, 40, clean.shape), 0, 255) for _ in range(2)]
    first, second, known = (images.round().astype(np.uint8) for images in (*noisy, clean))
    return first, second, known


def psnr_db(images: Images, clean: Images) -> float:
    return float(10 * np.log10(255**2 / np.mean((images.astype(float).clip(0, 255) - clean) ** 2)))


SCALES: dict[str, tuple[type, float]] = {
    "uint8": (np.uint8, 1),
    "uint16, 12 bits": (np.uint16, 16),
    "float 0..1": (np.float32, 1 / 255),
    "float 0..255": (np.float64, 1),
}


@pytest.mark.slow
def test_every_type_and_range_is_learnt_equally_well_and_goes_on():
    source, target, clean = noisy_pairs(96)
    reached: dict[str, float] = {}
    for name, (dtype, scale) in SCALES.items():
        first, second = ((images.astype(float) * scale).astype(dtype) for images in (source, target))
        denoiser = Denoiser(NET).fit(first, second, **QUICK | {"epochs": 45}, batch_size=8)
        denoised = denoiser.denoise(first)
        assert denoised.dtype == dtype
        reached[name] = psnr_db(denoised / scale, clean)
    assert max(reached.values()) - min(reached.values()) < 0.2, reached
    assert reached["uint8"] > psnr_db(source, clean) + 1
    again = denoiser.fit(first, second, **QUICK | {"epochs": 45}, batch_size=8).denoise(first)
    assert psnr_db(again / scale, clean) > reached[name]


@needs_general
@pytest.mark.slow
def test_single_images_are_learnt_by_r2r_where_the_noise_is_known():
    rng = np.random.default_rng(0)
    clean = smooth_images(4, 96, seed=0).transpose(0, 2, 3, 1) / 255
    noisy = (clean + rng.normal(0, 0.1, clean.shape)).astype(np.float32)
    denoiser = Denoiser().fit(noisy, **QUICK | {"epochs": 4}, batch_size=4)
    assert denoiser.module.hparams["loss"] == {"name": "r2r"}
    assert np.square(denoiser.denoise(noisy) - clean).mean() < np.square(noisy - clean).mean() / 4
    assert denoiser.module.variance is not None
    slope, offset = map(np.asarray, denoiser.module.variance)
    np.testing.assert_allclose((0.5 * slope + offset) * denoiser.module.peak**2, 0.01, rtol=0.1)
    blurred = (noisy[:, 1:] + noisy[:, :-1]) / 2  # neighbours in columns share noise
    with pytest.warns(UserWarning, match=r"correlated.*Neighbor2Neighbor"):
        denoiser.fit(blurred, **QUICK)
    assert denoiser.module.hparams["loss"] == {"name": "neighbor2neighbor"}


def forms_of(images: Images) -> dict[str, Any]:
    """Return (N, H, W, C) in each form that ``fit`` takes."""
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return {
        "NHWC": images,
        "NCHW": first,
        "torch NCHW": torch.from_numpy(first),
        "torch NHWC": torch.from_numpy(images),
        "list HWC": list(images),
        "list torch CHW": list(torch.from_numpy(first)),
    }


@pytest.mark.slow
def test_every_form_trains_alike():
    source, target, _ = noisy_pairs()
    known: Images | None = None
    for name, first in forms_of(source).items():
        denoiser = Denoiser(NET).fit(first, forms_of(target)[name], **QUICK)
        denoised = denoiser.denoise(source)
        known = denoised if known is None else known
        np.testing.assert_array_equal(denoised, known, err_msg=name)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda grey: grey[..., 0], 12),  # (N, H, W)
        (lambda grey: grey[0, ..., 0], 1),  # (H, W)
        (lambda grey: grey[0], 1),  # (H, W, 1)
        (lambda grey: torch.from_numpy(grey[..., 0]), 12),
    ],
)
def test_grey_images_need_no_axis_of_channels(change: Callable[[Images], Any], count: int):
    source, target, _ = noisy_pairs(channels=1)
    denoiser = Denoiser(NET).fit(change(source), change(target), **QUICK)
    assert denoiser.channels == 1
    assert denoiser.denoise(change(source)).shape == change(source).shape
    assert len(as_nhwc(np.asarray(change(source)), find_axes(change(source).shape))) == count


def test_images_of_any_sizes_in_a_list():
    rng = np.random.default_rng(0)
    source, target = ([rng.integers(0, 200, (30 + 10 * n, 50), np.uint8) for n in range(3)] for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pairs without a scene
        assert Denoiser(NET).fit(source, target, **QUICK).channels == 1


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (3, 8, 9), (6, 7, 8), (2, 3, 8, 9), (2, 8, 9, 3)])
def test_axes_go_there_and_back(shape: tuple[int, ...]):
    values = np.arange(np.prod(shape)).reshape(shape)
    axes = find_axes(shape)
    assert as_nhwc(values, axes).ndim == 4
    np.testing.assert_array_equal(from_nhwc(as_nhwc(values, axes), axes), values)


def changed(images: Images, place: tuple[int, ...], value: float) -> Images:
    images = images.astype(np.float32)
    images[place] = value
    return images


FIRST, SECOND, _CLEAN = noisy_pairs()
REFUSED = {
    "shapes": (FIRST, SECOND[:, :30], r"one shape, got \(12, 32, 32, 3\) and \(12, 30, 32, 3\)"),
    "counts": (FIRST, SECOND[:5], r"one shape, got \(12, .* and \(5, "),
    "lists": (list(FIRST), list(SECOND[:5]), r"one shape"),
    "types": (FIRST, SECOND.astype(float), r"target\[0\] holds .* float, source\[0\] .* uint8"),
    "NaN": (changed(FIRST, (3, 1, 1, 1), np.nan), SECOND.astype(np.float32), r"source\[3\] holds NaN"),
    "infinite": (FIRST.astype(np.float32), changed(SECOND, (2, 1, 1, 1), np.inf), r"target\[2\] holds NaN or inf"),
    "copies": (FIRST, FIRST, r"target\[0\] is a copy of source\[0\]"),
    "dead": (FIRST[:1], np.zeros_like(FIRST[:1]), r"target\[0\] holds one value only"),
    "dead both": (
        np.zeros_like(FIRST),
        np.ones_like(FIRST),
        "source and target must hold images, got arrays of one value",
    ),
    "masked": (np.ma.masked_greater(FIRST, 200), SECOND, "masked values"),
    "none": (FIRST[:0], SECOND[:0], r"got \(0, 32, 32, 3\)"),
    "empty list": ([], [], "got none"),
    "bool": (FIRST > 9, SECOND > 9, "of bool"),
    "axes": (FIRST[0, 0, 0], SECOND[0, 0, 0], r"source must be .*got \(3,\)"),
    "images of a list": ([FIRST], [SECOND], r"source\[0\] must be"),
    "ambiguous": (FIRST[0].transpose(2, 0, 1), SECOND[0].transpose(2, 0, 1), r"source\[:, None\].*source\[None\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_no_pairs_are_refused_with_the_reason(case: str):
    source, target, words = REFUSED[case]
    with pytest.raises(ValueError, match="(?s)" + words):
        Denoiser(NET).fit(source, target, **QUICK)


def test_some_copies_are_left_out_and_named(capsys: pytest.CaptureFixture[str]):
    target = SECOND.copy()
    target[4] = FIRST[4]
    assert Denoiser(NET).fit(FIRST, target, **QUICK).is_trained
    assert "target[4] is a copy of source[4]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 0}, "epochs must be an integer of 1 or more, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer of 1 or more, got 1.5"),
        ({"epochs": None, "minutes": 0}, "minutes must be a number above 0, got 0"),
        ({"epochs": None, "minutes": float("nan")}, "minutes must be a number above 0, got nan"),
        ({"epochs": None, "minutes": "1"}, "minutes must be a number above 0, got '1'"),
        ({"minutes": 1}, "either epochs or minutes"),
        ({"batch_size": 0}, "batch_size must be an integer of 1 or more, got 0"),
        ({"seed": None}, "seed must be an integer of 0 or more, got None"),
        ({"device": "cudda"}, "device 'cudda' cannot be used"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Denoiser(NET).fit(FIRST, SECOND, **QUICK | wrong)


@pytest.mark.slow
def test_a_second_fit_keeps_range_and_channels():
    source, target = (images / np.float32(255) for images in (FIRST, SECOND))
    denoiser = Denoiser(NET).fit(source, target, **QUICK)
    denoiser.fit(source * 1.2, target * 1.2, **QUICK)
    assert denoiser.module.peak == 1, "the range of the first training"
    with pytest.raises(ValueError, match=r"another scale"):
        denoiser.fit(source * 255, target * 255, **QUICK)
    with pytest.raises(ValueError, match="must have 3 channels as before, got 1"):
        denoiser.fit(source[..., :1], target[..., :1], **QUICK)
    assert denoiser.fit(source[0].transpose(2, 0, 1), target[0].transpose(2, 0, 1), **QUICK).channels == 3


@pytest.mark.slow
def test_minutes_set_the_length(capsys: pytest.CaptureFixture[str]):
    denoiser = Denoiser(NET).fit(FIRST, SECOND, minutes=0.15, device="cpu")
    assert "0.15 min: " in capsys.readouterr().out
    assert denoiser.is_trained


@needs_general
@pytest.mark.parametrize(("channels", "start"), [(3, "weights/general"), (1, "weights/general"), (2, "random weights")])
def test_the_default_starts_from_the_general_weights(channels: int, start: str, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 200, (2, 16, 16, channels), np.uint8) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pairs without a scene
        denoiser = Denoiser().fit(source, target, **QUICK | {"progress": True})
    assert denoiser.start == f"starting from {start}"
    assert start in capsys.readouterr().out
    assert Denoiser(NET).fit(FIRST, SECOND, **QUICK).start == "starting from random weights"


@needs_general
def test_the_default_denoises_before_training_and_says_with_what():
    source, _, clean = noisy_pairs(2)
    with pytest.warns(UserWarning, match="not trained.*starting from weights/general"):
        denoised = Denoiser().denoise(source)
    assert psnr_db(denoised, clean) > psnr_db(source, clean) + 5


@needs_general
def test_a_fit_of_one_step_keeps_what_its_start_can_do():
    rng, along = np.random.default_rng(0), np.mgrid[:128, :128].sum(0) / 40
    clean = 128 + 70 * np.sin(np.stack([along, along + 1, along + 2], -1))
    first, second = (clean + rng.normal(0, 15, clean.shape) for _ in range(2))
    with pytest.warns(UserWarning, match="not trained"):
        start = psnr_db(Denoiser().denoise(first), clean)
    assert psnr_db(Denoiser().fit(first, second, **QUICK).denoise(first), clean) > start - 0.1


def test_a_saved_denoiser_is_read_back(tmp_path: Path):
    source, target = (images.astype(np.float32) / 255 for images in (FIRST, SECOND))
    denoiser = Denoiser(NET).fit(source, target, **QUICK)
    path = tmp_path / "new" / "mine.ckpt"
    denoiser.save(path)
    again = Denoiser.load(path)
    np.testing.assert_array_equal(again.denoise(source), denoiser.denoise(source))
    assert load_denoiser(path).peak == 1
    about = torch.load(path, weights_only=True)["n2n_lightning"]
    assert about["start"] == "starting from random weights"
    assert again.fit(source, target, **QUICK).start == f"starting from {path.as_posix()}"
    with pytest.raises(ValueError, match=r"trained.*fit\(source, target\)"):
        Denoiser(NET).save(path)


@pytest.mark.slow
def test_the_command_predict_reads_what_was_saved(tmp_path: Path):
    Denoiser(NET).fit(FIRST, SECOND, **QUICK).save(tmp_path / "mine.ckpt")
    np.save(tmp_path / "noisy.npy", FIRST[0])
    run_python(["-m", "n2n_lightning.predict", "mine.ckpt", "noisy.npy", "--output", "out"], tmp_path)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/noisy.npy"), Denoiser.load(tmp_path / "mine.ckpt").denoise(FIRST[0])
    )


@pytest.mark.slow
def test_the_example_of_the_help_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_examples(pydoc.getdoc(Denoiser))
    assert examples
    names: dict[str, Any] = {"first": FIRST[:4], "second": SECOND[:4]}
    for example in examples:
        exec(example.source.replace("minutes=5", "epochs=1, progress=False"), names)
    np.testing.assert_array_equal(names["same"], names["clean"])
