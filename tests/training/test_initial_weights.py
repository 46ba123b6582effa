"""``init_from``: by default, one's own images start from the general weights where these fit, folded for grey ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from noisy_files import ALL, source
from numbered_images import write
from PIL import Image
from small_runs import MODELS, compose_config, compose_settings, read_json, small, train_with

from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.training.build import build_module
from n2n_lightning.training.initial_weights import FOLDED, find_initial, for_grey


def module_family(model: str) -> str:
    family: str = compose_config(f"model={model}")["model"]["family"]
    return family


@pytest.mark.parametrize("model", [model for model in MODELS if module_family(model) in FOLDED])
def test_a_net_folded_for_grey_gives_the_mean_of_what_three_equal_channels_give(model: str):
    colour, grey = (build_module(compose_settings(*small(model)), channels).eval() for channels in (3, 1))
    grey.net.load_state_dict(for_grey(colour.net.state_dict(), grey.net.state_dict()))
    noisy = torch.rand(2, 1, 24, 16, generator=torch.Generator().manual_seed(0))
    expected = colour(noisy.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    torch.testing.assert_close(grey(noisy), expected, atol=1e-5, rtol=1e-4)


SHORT = ("trainer.max_epochs=1", "data.crop_px=16", "data.train_pairs=8", "data.val_pairs=4")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_ones_own_images_start_from_the_general_weights(noisy_images: Path, tmp_path: Path, channels: int):
    if channels == 1:
        for path in (noisy_images / "frames").rglob("*.png"):
            write(tmp_path / path.relative_to(noisy_images), np.asarray(Image.open(path).convert("L")))
    root = tmp_path if channels == 1 else noisy_images
    options = (
        "data=burst",
        f"data.root={root / 'frames'}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "optimizer.lr=1e-30",
    )
    run = train_with(tmp_path / "run", *options, "optimizer.weight_decay=0", *SHORT)
    assert "weights/general" in read_json(run / "result.json")["start"]
    general = load_denoiser("general").net.state_dict()
    found = load_denoiser(run / "checkpoints/best.ckpt").net.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in (for_grey(general, found)).items())


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=photos", "model=nafnet32"],
        ["data=burst", "data.root=there", "init_from=null"],
        ["data=burst", "data.root=there", "model=unet"],
        ["data=clean", "data.root=there", "noise=text"],
    ],
)
def test_other_runs_start_from_random_weights(overrides: list[str]):
    assert find_initial(compose_settings(*overrides)) is None


def test_a_net_of_another_size_starts_from_random_weights(noisy_images: Path, tmp_path: Path):
    options = (*source("burst", noisy_images), *ALL, "trainer.max_epochs=1", *small("nafnet32"))
    run = train_with(tmp_path / "run", *options)
    assert read_json(run / "result.json")["start"] == "starting from random weights"


def test_a_start_that_no_epoch_surpasses_is_kept(
    noisy_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "scheduler=none")
    first = train_with(tmp_path / "first", *options, "optimizer.lr=0.01")
    start = first / "checkpoints/best.ckpt"
    capsys.readouterr()
    worse = train_with(tmp_path / "worse", *options, f"init_from={start}", "optimizer.lr=0.3")
    out = capsys.readouterr().out
    assert out.count("\nstart  val/loss") == 1 and " dB before training (" in out
    assert "no epoch is better than what it started from, which best.ckpt holds), best val/psnr_pairs" in out
    assert "train with a smaller optimizer.lr" in out and "train longer" not in out
    trained, record = read_json(first / "result.json"), read_json(worse / "result.json")
    assert record["best_epoch"] == 0 and record["epochs"] == 2
    assert record["val/psnr_pairs"] == record["start_score"] == pytest.approx(trained["val/psnr_pairs"], abs=1e-4)
    before, kept = (load_denoiser(path).net.state_dict() for path in (start, worse / "checkpoints/best.ckpt"))
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())


def test_a_run_that_goes_on_keeps_the_score_of_its_start(
    noisy_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = (*source("burst", noisy_images), *ALL, *small("nafnet32"), "scheduler=none", "optimizer.lr=0.003")
    first = train_with(tmp_path / "first", *options)
    assert "start_score" not in read_json(first / "result.json"), "random weights are no start to keep"
    options = (*options, f"init_from={first / 'checkpoints/best.ckpt'}")
    run = train_with(tmp_path / "run", *options)
    before = read_json(run / "result.json")
    assert f"in epoch {before['best_epoch']}, {before['start_score']:.2f} before training" in capsys.readouterr().out
    train_with(run, *options, "trainer.max_epochs=3")
    after = read_json(run / "result.json")
    assert "\nstart  val/loss" not in capsys.readouterr().out
    assert after["epochs"] == 3 and after["start_score"] == before["start_score"]
