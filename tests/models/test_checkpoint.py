"""Checkpoints as users meet them: loaded without Hydra, denoising anything, stripped, refused, evaluated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_runs import (
    MODELS,
    compose_settings,
    evaluate_main,
    read_json,
    small,
    train_in,
    weights_of,
    write_course_data,
)
from torch import Tensor

import n2n_lightning
from n2n_lightning.models.checkpoint import load_denoiser, read_checkpoint, strip_checkpoint
from n2n_lightning.models.module import FORMAT, DenoiserModule
from n2n_lightning.training.build import build_module

ONE_STEP = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
SSIM = {"channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, course_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each model for one step; return its checkpoint."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return train_in(folder, course_data, *small(request.param), *ONE_STEP) / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def checkpoint(course_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the model that trains fastest."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = ("model=convtrans_relu", "trainer.max_epochs=2", "optimizer=adam")
    return train_in(folder, course_data, *options) / "checkpoints" / "best.ckpt"


def random_images(*shape: int) -> Tensor:
    """Return float32 images, also outside [0, 1] as noisy images are."""
    return 1.6 * torch.rand(*shape, generator=torch.Generator().manual_seed(2)) - 0.3


def untrained(model: str = "unet", channels: int = 3) -> DenoiserModule:
    torch.manual_seed(4)
    return build_module(compose_settings(f"model={model}"), channels)


# Loading


@pytest.mark.slow
def test_a_checkpoint_loads_as_the_net_that_was_saved(trained: Path):
    denoiser = n2n_lightning.load_denoiser(trained)
    assert not denoiser.training
    saved = weights_of(trained)
    loaded = {f"net.{name}": weight for name, weight in denoiser.net.state_dict().items()}
    assert loaded.keys() == saved.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)
    images = random_images(2, 3, 20, 30)
    with torch.no_grad():
        assert torch.equal(denoiser.denoise(images), denoiser.net(images))


def test_the_checkpoint_describes_the_net_without_a_configuration(trained: Path):
    content = torch.load(trained, weights_only=True)
    about = content["n2n_lightning"]
    assert about["format"] == FORMAT and about["peak"] == 255.0
    denoiser = load_denoiser(trained)
    assert denoiser.family == about["family"] and denoiser.hparams["channels"] == 3
    assert type(denoiser.configure_optimizers()).__name__.lower() == content["hyper_parameters"]["optimizer"]["name"]


def test_a_path_may_be_text(trained: Path):
    assert load_denoiser(str(trained)).family == load_denoiser(trained).family


# Denoising


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (13, 6), (48, 33)])
def test_any_size_is_denoised(trained: Path, height: int, width: int):
    images = random_images(2, 3, height, width)
    estimate = load_denoiser(trained).denoise(images)
    assert estimate.shape == images.shape and estimate.dtype == torch.float32 and not estimate.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_come_back_in_their_type(dtype: torch.dtype):
    images = random_images(1, 3, 8, 8).to(dtype)
    estimate = untrained().denoise(images)
    assert estimate.dtype == dtype
    torch.testing.assert_close(estimate, untrained().denoise(images.float()).to(dtype))


def test_floats_are_not_clipped():
    module = untrained()
    with torch.no_grad():
        module.net.dec_conv1c.bias.copy_(torch.tensor([-3.0, 0.5, 4.0]))
    estimate = module.denoise(random_images(1, 3, 8, 8))
    assert estimate[:, 0].max() < 0 and estimate[:, 2].min() > 1


def test_bytes_are_scaled_rounded_and_clipped():
    module = untrained()
    with torch.no_grad():
        module.net.dec_conv1c.bias.copy_(torch.tensor([-3.0, 0.5, 4.0]))
    stored = torch.randint(256, (2, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    estimate = module.denoise(stored)
    assert estimate.dtype == torch.uint8
    expected = module.denoise(stored.float() / 255).numpy() * 255
    np.testing.assert_array_equal(estimate, np.rint(expected.clip(0, 255)))
    assert (estimate[:, 0] == 0).all() and (estimate[:, 2] == 255).all()
    assert len(estimate[:, 1].unique()) > 5, "the middle channel must show the rounding"


@pytest.mark.parametrize(("dtype", "most"), [(torch.uint16, 65535), (torch.int16, 32767), (torch.int32, 2**31 - 1)])
def test_integers_have_the_training_datas_range_and_are_clipped_to_their_type(dtype: torch.dtype, most: int):
    """The net sees 4095 as 1; 100 times that does not fit into 16 bits."""
    module = untrained()
    module.peak = 4095.0
    with torch.no_grad():
        module.net.dec_conv1c.bias.copy_(torch.tensor([-3.0, 0.5, 100.0]))
    stored = torch.randint(4096, (2, 3, 9, 7), generator=torch.Generator().manual_seed(0))
    estimate = module.denoise(stored.to(dtype))
    assert estimate.dtype == dtype
    expected = module.denoise(stored.float() / 4095).double().numpy() * 4095
    limits = torch.iinfo(dtype)
    np.testing.assert_allclose(estimate.double(), expected.round().clip(limits.min, most), atol=1, rtol=1e-6)


def test_denoising_leaves_the_images_and_the_mode_as_they_were():
    module, images = untrained().train(), random_images(1, 3, 8, 8)
    before = images.clone()
    module.denoise(images)
    assert module.training and torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(2, 1, 8, 8), r"images must be \(N, 3, H, W\), got \(2, 1, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"images must be \(N, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(2, 3, 0, 8), r"images must be \(N, 3, H, W\), got \(2, 3, 0, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bool), "images must be floats or integers, got torch.bool"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.complex64), "images must be floats or integers, got torch.complex64"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, words: str):
    with pytest.raises(ValueError, match=words):
        untrained().denoise(images)


def test_a_net_of_one_channel_says_so():
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\), got \(2, 3, 8, 8\)"):
        untrained("convtrans_relu", 1).denoise(torch.zeros(2, 3, 8, 8))


# Stripping


def test_a_stripped_checkpoint_denoises_alike_and_is_smaller(checkpoint: Path, tmp_path: Path):
    stripped = tmp_path / "weights.ckpt"
    strip_checkpoint(checkpoint, stripped)
    images = random_images(2, 3, 20, 30)
    assert torch.equal(load_denoiser(stripped).denoise(images), load_denoiser(checkpoint).denoise(images))
    content = torch.load(stripped, weights_only=True)
    assert "optimizer_states" not in content and "callbacks" not in content
    floats = sum(weight.numel() for weight in content["state_dict"].values())
    assert floats == 38_211 and stripped.stat().st_size < 4 * floats + 20_000
    # Adam keeps two more numbers for each weight
    assert stripped.stat().st_size < checkpoint.stat().st_size / 2.5


# What is not loaded


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_is_refused_and_not_run(checkpoint: Path, tmp_path: Path):
    sprung, poisoned = tmp_path / "sprung", tmp_path / "poisoned.ckpt"
    torch.save(torch.load(checkpoint, weights_only=True) | {"hyper_parameters": Trap(sprung)}, poisoned)
    for read in (load_denoiser, read_checkpoint):
        with pytest.raises(ValueError, match="was not loaded"):
            read(poisoned)
    with pytest.raises(ValueError, match="was not loaded"):
        strip_checkpoint(poisoned, tmp_path / "stripped.ckpt")
    assert not sprung.exists() and not (tmp_path / "stripped.ckpt").exists()
    torch.load(poisoned, weights_only=False)
    assert sprung.exists(), "the trap itself does not work"


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, kept: float):
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[: int(kept * checkpoint.stat().st_size)])
    with pytest.raises(ValueError, match=r"cut\.ckpt.* damaged"):
        load_denoiser(cut)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}}, [1, 2], torch.zeros(3), {"n2n_lightning": {"format": 1, "family": "other"}}],
)
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of n2n_lightning"):
        load_denoiser(tmp_path / "foreign.ckpt")


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "page.ckpt").write_text("<html>404: not found</html>")
    with pytest.raises(ValueError, match=r"page\.ckpt"):
        load_denoiser(tmp_path / "page.ckpt")


def test_a_newer_format_asks_for_a_newer_version(checkpoint: Path, tmp_path: Path):
    content = torch.load(checkpoint, weights_only=True)
    content["n2n_lightning"]["format"] = FORMAT + 1
    torch.save(content, tmp_path / "newer.ckpt")
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, this version reads up to {FORMAT}; update"):
        load_denoiser(tmp_path / "newer.ckpt")


def test_weights_that_do_not_fit_their_description_are_refused(checkpoint: Path, tmp_path: Path):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["channels"] = 4
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match="do not fit its own description"):
        load_denoiser(tmp_path / "odd.ckpt")


@pytest.mark.parametrize("span", [[1.0, -1.0], [0.0], [0.0, math.inf], [0.0, math.nan], "wide", [0.0, None]])
@pytest.mark.parametrize("name", ["span", "reach"])
def test_a_span_of_no_use_is_refused(checkpoint: Path, tmp_path: Path, name: str, span: object):
    content = torch.load(checkpoint, weights_only=True)
    content["n2n_lightning"][name] = span
    torch.save(content, tmp_path / "wrong.ckpt")
    with pytest.raises(ValueError, match="is not a checkpoint of n2n_lightning"):
        load_denoiser(tmp_path / "wrong.ckpt")


def test_estimates_are_clipped_to_the_training_datas_span(checkpoint: Path, tmp_path: Path):
    content = torch.load(checkpoint, weights_only=True)
    about = content["n2n_lightning"]
    about.pop("span", None)
    for span, limits in ((None, (0, 1)), ([-1000, 1500], (-0.5, 0.75))):
        about |= {"peak": 2000.0} | ({"span": span} if span else {})
        torch.save(content, tmp_path / "signed.ckpt")
        assert load_denoiser(tmp_path / "signed.ckpt").limits == limits, "an old checkpoint has none"


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.ckpt does not exist"):
        load_denoiser(tmp_path / "none.ckpt")


# Evaluation


def test_evaluation_agrees_with_sums_by_hand(command: Command, checkpoint: Path, tmp_path: Path):
    data = write_course_data(tmp_path / "data", train=1, val=9, size=19)
    line = [
        f"checkpoint={checkpoint}",
        "data=ee559",
        f"data.root={data}",
        "data.val_batch_size=4",
        "output=scores.json",
    ]
    ended = command(*line, main=evaluate_main)
    assert ended.code == 0, ended.err
    scores = read_json(tmp_path / "scores.json")

    stored = torch.load(data / "val_data.pkl", weights_only=True)
    noisy, clean = (images.double().numpy() / 255 for images in stored)
    estimate = load_denoiser(checkpoint).denoise(torch.from_numpy(noisy).float()).double().numpy()
    psnrs = [peak_signal_noise_ratio(c, e.clip(0, 1), data_range=1) for e, c in zip(estimate, clean, strict=True)]
    noisy_psnrs = [peak_signal_noise_ratio(c, n, data_range=1) for n, c in zip(noisy, clean, strict=True)]
    ssims = [structural_similarity(c, e.clip(0, 1), **SSIM) for e, c in zip(estimate, clean, strict=True)]
    gain = np.subtract(psnrs, noisy_psnrs)
    pooled = 10 * np.log10(1 / np.mean((estimate.clip(0, 1) - clean) ** 2))
    expected = {
        "val/psnr": np.mean(psnrs),
        "val/psnr_pooled": pooled,
        "val/ssim": np.mean(ssims),
        "val/loss": np.mean((estimate - clean) ** 2),
        "noisy_psnr": np.mean(noisy_psnrs),
        "gain_db": np.mean(gain),
        "gain_standard_error_db": np.std(gain, ddof=1) / 3,  # the root of nine images
    }
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=2e-4)
    assert scores["images"] == 9
    assert scores["per_image"]["psnr"] == pytest.approx(psnrs, abs=2e-4)
    assert scores["per_image"]["noisy_psnr"] == pytest.approx(noisy_psnrs, abs=2e-4)
    assert scores["per_image"]["ssim"] == pytest.approx(ssims, abs=2e-4)
    assert f"{scores['val/psnr']:.4f}" in ended.out and ended.out.rstrip().endswith("scores.json")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "scores.json"}


def test_evaluation_repeats_the_best_epochs_scores(
    command: Command, checkpoint: Path, course_data: Path, tmp_path: Path
):
    """On its validation data, a checkpoint gets the scores of its run; the JSON file is named after the run."""
    ended = command(f"checkpoint={checkpoint}", "data=ee559", f"data.root={course_data}", main=evaluate_main)
    assert ended.code == 0, ended.err
    name = f"{checkpoint.parents[2].name}-run-ee559,data.root={course_data.name}-"
    (path,) = (tmp_path / "outputs/evaluate").iterdir()
    assert path.name.startswith(name) and len(path.stem) == len(name) + 8
    scores = read_json(path)
    noted = read_json(checkpoint.parents[1] / "result.json")
    keys = ("val/psnr", "val/psnr_pooled", "val/ssim", "val/loss", "noisy_psnr")
    assert {key: scores[key] for key in keys} == pytest.approx({key: noted[key] for key in keys}, rel=1e-6)
    assert len(scores["per_image"]["psnr"]) == scores["images"] == 24


def test_small_images_are_evaluated_without_ssim(command: Command, checkpoint: Path, tmp_path: Path):
    data = write_course_data(tmp_path / "data", train=1, val=1, size=10)
    line = [f"checkpoint={checkpoint}", "data=ee559", f"data.root={data}", "output=scores.json"]
    ended = command(*line, main=evaluate_main)
    assert ended.code == 0, ended.err
    scores = read_json(tmp_path / "scores.json")
    assert "val/ssim" not in scores and scores["images"] == 1
    assert scores["gain_standard_error_db"] is None, "one image has no spread"
