"""``predict auto``: what it says of each file, what it takes, grey images, and that the same command goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Command
from numbered_images import write
from predict_runs import Array, denoise, files, noise, pixels
from skimage import data
from small_runs import ROOT

from n2n_lightning import Denoiser

IN = Path("given/in")
CLEAN = data.coffee()[100:196, 100:228].astype(np.float64)


def noisy(sigma: float, clean: Array = CLEAN) -> Array:
    values = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    stored: Array = np.rint(values.clip(0, 255)).astype(np.uint8)
    return stored


def psnr(image: Array, clean: Array) -> float:
    return float(10 * np.log10(255**2 / np.mean((image.astype(np.float64) - clean) ** 2)))


def said(out: str, name: str) -> str:
    """Return the one line about a file of the input."""
    (line,) = (line for line in out.splitlines() if line.startswith(f"{IN}/{name}"))
    return line


@pytest.mark.slow
def test_auto_takes_the_general_weights_and_names_the_noise(command: Command):
    write(IN / "a.png", noisy(25))
    ended = denoise(command, IN, model="auto")
    assert ended.code == 0 and ended.err == ""
    assert "noise of sd 2" in said(ended.out, "a.png") and "using general" in said(ended.out, "a.png")
    assert psnr(pixels("out/a.png"), CLEAN) > psnr(noisy(25), CLEAN) + 8
    denoise(command, IN, model="general", output="named")
    np.testing.assert_array_equal(pixels("out/a.png"), pixels("named/a.png"))


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_is_said_to_be_one_and_written(command: Command, value: int):
    write(IN / "a.png", np.full((40, 50, 3), value, np.uint8))
    ended = denoise(command, IN, model="auto")
    assert ended.code == 0
    assert f"every value is {value}, there is nothing to denoise; using general" in said(ended.out, "a.png")
    assert np.abs(pixels("out/a.png").astype(int) - value).max() < 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "text"),
    [
        (data.chelsea(), "hardly any independent noise"),
        (noisy(10, 2.2 * CLEAN), "% of the values are 255 (saturated)"),
        (noisy(10)[:9, :7], "too small to measure its noise"),
        (np.kron(noise(48, 64, 3), np.ones((3, 3, 1), np.uint8)), "correlated between neighbouring pixels"),
    ],
)
def test_what_general_does_not_suit_is_named(command: Command, values: Array, text: str):
    write(IN / "a.png", values)
    ended = denoise(command, IN, model="auto")
    assert ended.code == 0 and files("out") == {"a.png"}
    assert text in said(ended.out, "a.png") and "using general" in said(ended.out, "a.png")


def test_the_middle_of_a_stack_is_looked_at(command: Command):
    values = np.stack([np.full(CLEAN.shape, 9, np.uint8), noisy(25), np.full(CLEAN.shape, 9, np.uint8)])
    write(IN / "a.tif", values)
    line = said(denoise(command, IN, model="auto").out, "a.tif")
    assert "(middle): noise of sd 2" in line


def test_other_weights_say_nothing_of_the_noise(command: Command):
    write(IN / "a.png", noisy(25))
    assert "noise of sd" not in denoise(command, IN, model="general").out


def test_values_that_are_not_finite_are_an_error_as_ever(command: Command):
    values = noisy(25).astype(np.float32)
    values[40, 50] = np.nan
    write(IN / "a.npy", values)
    ended = denoise(command, IN, "--range", "256", model="auto")
    assert ended.code == 2 and "NaN" in ended.err and "noise of sd" not in ended.out


@pytest.mark.slow
def test_the_same_command_skips_what_is_done_and_general_is_the_same(command: Command):
    write(IN / "a.png", noisy(25))
    denoise(command, IN, model="auto")
    write(IN / "b.png", noisy(10))
    ended = denoise(command, IN, model="auto")
    assert "1 of 2 files denoised, 1 done before" in ended.out
    assert "b.png: noise" in ended.out and "a.png: noise" not in ended.out
    assert "0 of 2 files denoised, 2 done before" in denoise(command, IN, model="general").out


# Grey images


@pytest.mark.slow
@pytest.mark.parametrize("model", ["auto", "general"])
def test_grey_images_go_through_the_general_net_without_per_channel(command: Command, model: str):
    clean = CLEAN.mean(-1)
    write(IN / "a.png", noisy(25, clean))
    ended = denoise(command, IN, model=model)
    assert ended.code == 0
    assert f"{IN}/a.png (1 channel): each channel goes through the net by itself" in ended.out
    assert psnr(pixels("out/a.png"), clean) > psnr(noisy(25, clean), clean) + 7
    asked = denoise(command, IN, "--per-channel", model="general", output="asked")
    assert "each channel goes" not in asked.out
    np.testing.assert_array_equal(pixels("out/a.png"), pixels("asked/a.png"))


@pytest.mark.slow
def test_any_number_of_channels_beside_colour(command: Command):
    IN.mkdir(parents=True)
    values = np.stack([noisy(25, CLEAN.mean(-1))] * 5, -1)
    tifffile.imwrite(IN / "a.tif", values, photometric="minisblack", planarconfig="contig")
    write(IN / "b.png", noisy(25, CLEAN.mean(-1)))
    write(IN / "c.png", noisy(25))
    ended = denoise(command, IN, model="auto")
    assert ended.code == 0 and f"{IN}/a.tif (5 channels) and 1 more: each channel" in ended.out
    for channel in range(5):
        np.testing.assert_array_equal(pixels("out/a.tif")[..., channel], pixels("out/b.png"))
    denoise(command, IN / "c.png", model="general", output="alone")
    np.testing.assert_array_equal(pixels("out/c.png"), pixels("alone/c.png"))


def test_weights_that_have_not_learnt_grey_images_still_need_per_channel(command: Command):
    write(IN / "a.png", noisy(25, CLEAN.mean(-1)))
    ended = denoise(command, IN, model="gaussian")
    assert ended.code == 2 and "--per-channel" in ended.err


def test_a_denoiser_in_python_takes_grey_arrays():
    values = noisy(25, CLEAN.mean(-1))
    denoised = Denoiser.load("general").denoise(values)
    assert denoised.shape == values.shape and psnr(denoised, CLEAN.mean(-1)) > psnr(values, CLEAN.mean(-1)) + 7
    np.testing.assert_array_equal(denoised, Denoiser.load("general", per_channel=True).denoise(values))
    with pytest.raises(ValueError, match="3 channels"):
        Denoiser.load(ROOT / "weights/five_models/nn_relu").denoise(values)
