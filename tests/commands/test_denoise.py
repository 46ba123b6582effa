"""``denoise``: single noisy images, what is done with each, what is passed through, and bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import Command, Ended
from numbered_images import write
from PIL import Image
from predict_runs import Array, pixels
from scipy import ndimage
from skimage import data
from warm_processes import run_warm

from n2n_lightning import denoise
from n2n_lightning.models.trained import GENERAL, find_trained

pytestmark = pytest.mark.skipif(GENERAL not in find_trained(), reason="weights/general is not installed")
IN = Path("in")
CLEAN = data.coffee()[100:196, 100:228].astype(np.float64)


def noisy(sigma: float, blur_px: float = 0.0, clean: Array = CLEAN) -> Array:
    """Return a photograph of 8 bits with noise of this strength, which a blur may have correlated."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, clean.shape), (blur_px, blur_px, 0))
    stored: Array = np.rint((clean + sigma * noise / noise.std()).clip(0, 255)).astype(np.uint8)
    return stored


def psnr(image: Array, clean: Array = CLEAN, peak: float = 255) -> float:
    return float(10 * np.log10(peak**2 / np.mean((image.astype(np.float64) - clean) ** 2)))


def run(command: Command, *arguments: str | Path, minutes: float = 0) -> Ended:
    words = [*map(str, arguments), "--output", "out", "--minutes", str(minutes)]
    ended = command(*words, main=denoise.main)
    assert "Traceback" not in ended.out + ended.err
    assert not list(Path("out").rglob("*.part"))
    return ended


def records() -> dict[str, dict[str, Any]]:
    lines = Path("out/denoise.jsonl").read_text().splitlines()
    return {entry["output"]: entry for entry in map(json.loads, lines)}


@pytest.mark.slow
def test_white_noise_is_removed_and_the_result_is_estimated(command: Command):
    write(IN / "a.png", noisy(25))
    ended = run(command, IN)
    assert ended.code == 0 and ended.err == ""
    assert psnr(pixels("out/a.png")) > psnr(noisy(25)) + 8
    record = records()["a.png"]
    assert record["kind"] == "independent" and record["spacings"] == [1] and record["turns"] == 8
    assert record["noise_sd"] == pytest.approx(25, rel=0.15)
    assert "method: general, mean of 8 flips and rotations" in ended.out
    if record["psnr_db"] is not None:
        assert record["psnr_db"] == pytest.approx(psnr(pixels("out/a.png")), abs=1.5)
    with Image.open("out/denoise.png") as picture:
        assert min(picture.size) > 100


@pytest.mark.slow
def test_correlated_noise_is_removed_and_its_estimate_declined(command: Command):
    write(IN / "a.png", noisy(15, 0.6))
    ended = run(command, IN)
    record = records()["a.png"]
    assert record["kind"] == "correlated" and record["spacings"] == [1, 2] and record["psnr_db"] is None
    assert "correlated" in ended.out and "PSNR: not estimated" in ended.out
    assert psnr(pixels("out/a.png")) > psnr(noisy(15, 0.6)) + 3


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.full((40, 50, 3), 7, np.uint8), "every value is 7"),
        (noisy(25)[:9, :30], "fewer than 16 px a side"),
        (data.coffee()[:128, :128], "hardly any"),
        (np.full((40, 50), 300, np.uint16), "every value is 300"),
    ],
)
def test_what_needs_no_denoising_is_passed_through(command: Command, values: Array, text: str):
    write(IN / "a.tif", values)
    ended = run(command, IN)
    assert ended.code == 0 and text in ended.out and "passed through" in ended.out
    np.testing.assert_array_equal(tifffile.imread("out/a.tif"), values)
    assert records()["a.tif"]["spacings"] is None


def drawing() -> Array:
    """Return a picture that is constant but for the edge of a disc."""
    y, x = np.mgrid[:128, :128]
    return np.where((y - 60) ** 2 + (x - 70) ** 2 < 900, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("values", [drawing(), data.coins()[:, 64:], data.brick()[:256, :256], data.chelsea()])
def test_fine_texture_is_not_taken_for_correlated_noise(command: Command, values: Array):
    write(IN / "a.png", values)
    run(command, IN)
    np.testing.assert_array_equal(pixels("out/a.png"), values)


def test_weak_noise_is_found(command: Command):
    write(IN / "a.png", noisy(3))
    assert "independent" in run(command, IN).out
    assert psnr(pixels("out/a.png")) > psnr(noisy(3)) + 1


def test_a_spacing_that_is_given_is_used(command: Command):
    values = noisy(1.5, 0.8)
    write(IN / "a.png", values)
    assert "--spacing 2" in run(command, IN).out
    np.testing.assert_array_equal(pixels("out/a.png"), values)
    ended = run(command, IN, "--spacing", "2", "--overwrite")
    assert "sub-images of pixels 1 and 2 px apart" in ended.out
    assert records()["a.png"]["spacings"] == [1, 2]
    assert 0.2 < np.std(pixels("out/a.png").astype(float) - values) < 5
    assert run(command, IN, "--spacing", "5").code == 2


def test_a_file_that_is_passed_through_is_copied(command: Command):
    IN.mkdir()
    Image.fromarray(data.coffee()[:128, :128]).save(IN / "a.jpg", quality=90)
    ended = run(command, IN)
    assert Path("out/a.jpg").read_bytes() == (IN / "a.jpg").read_bytes()
    assert "0 of 1 files denoised, 1 passed through" in ended.out
    run(command, IN, "--format", "png", "--overwrite")
    np.testing.assert_array_equal(pixels("out/a.png"), pixels(IN / "a.jpg"))


def test_a_range_that_is_given_is_used(command: Command):
    write(IN / "a.tif", noisy(25).astype(np.uint16))
    assert "range of uint16: 0 to 255, found in" in run(command, IN).out
    assert "1 done before" in run(command, IN).out
    for options, peak in ((("--range", "1023"), 1023), ((), 255)):
        assert "1 of 1 files denoised" in run(command, IN, *options).out
        assert json.loads(Path("out/denoise.jsonl").read_text().splitlines()[-1])["range"] == peak


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["ZYX", "CYX"])
def test_a_dark_noisy_page_beside_a_clean_one_is_denoised(command: Command, axes: str):
    clean, dark = 200 * CLEAN[..., 0], 4.0 * noisy(25)[..., 1]
    IN.mkdir()
    stored = np.rint(np.stack([clean, dark])).astype(np.uint16)
    tifffile.imwrite(IN / "a.tif", stored, imagej=True, metadata={"axes": axes})
    ended = run(command, IN)
    assert "of several strengths" in ended.out and "much darker than others" in ended.out
    denoised = pixels("out/a.tif")
    assert psnr(denoised[1] / 4, CLEAN[..., 1]) > psnr(dark / 4, CLEAN[..., 1]) + 5
    assert psnr(denoised[0] / 200, CLEAN[..., 0]) > 40


@pytest.mark.slow
def test_hounsfield_units_are_denoised_as_well_as_values_from_0(command: Command):
    clean = 12 * CLEAN
    stored = np.rint(clean + np.random.default_rng(0).normal(0, 150, CLEAN.shape)).astype(np.int16)
    write(IN / "a.tif", stored)
    write(IN / "hu.tif", stored - 1000)
    ended = run(command, IN)
    low = round(float(stored.min())) - 1000
    assert "range of int16: -896 to 3199, found in" in ended.out and f"values {low} to" in ended.out
    quality = {
        name: psnr(pixels(f"out/{name}"), clean - offset, 3000) for name, offset in (("a.tif", 0), ("hu.tif", 1000))
    }
    assert quality["hu.tif"] == pytest.approx(quality["a.tif"], abs=0.1)
    assert records()["hu.tif"]["noise_sd"] == pytest.approx(records()["a.tif"]["noise_sd"], rel=0.02)


def test_opacity_like_a_channel_is_refused_also_where_nothing_is_denoised(command: Command):
    IN.mkdir()
    values = np.dstack([data.coffee()[:128, :128], noisy(25, clean=np.full((128, 128, 1), 128.0))])
    tifffile.imwrite(IN / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    assert run(command, IN).code == 2


@pytest.mark.parametrize("scale", [1e-60, 1e36])
def test_values_beyond_32_bits_are_refused(command: Command, scale: float):
    IN.mkdir()
    np.save(IN / "a.npy", noisy(25) * scale)
    ended = run(command, IN)
    assert ended.code == 2 and "a.npy" in ended.err and not Path("out/a.npy").exists()


def test_a_narrow_image_is_too_small(command: Command):
    write(IN / "a.png", np.ascontiguousarray(noisy(25)[:, :12]))
    assert "fewer than 16 px a side" in run(command, IN).out


@pytest.mark.slow
def test_every_type_keeps_its_form_and_alpha(command: Command):
    values = noisy(25)
    alpha = np.where(np.arange(128) < 64, 0, 255).astype(np.uint8)[None].repeat(96, 0)
    IN.mkdir()
    tifffile.imwrite(IN / "deep.tif", values.astype(np.uint16) * 16, photometric="rgb")
    np.save(IN / "float.npy", values.astype(np.float32) / 255)
    write(IN / "grey.png", values[..., 0])
    Image.fromarray(np.dstack([values, alpha])).save(IN / "alpha.png")
    tifffile.imwrite(IN / "pages.tif", np.stack([values, values[::-1]]), photometric="rgb")
    assert run(command, IN).code == 0
    for name, clean, peak in (
        ("deep.tif", 16 * CLEAN, 4095),
        ("float.npy", CLEAN / 255, 1),
        ("grey.png", CLEAN[..., 0], 255),
        ("pages.tif", np.stack([CLEAN, CLEAN[::-1]]), 255),
    ):
        found = pixels(f"out/{name}")
        assert (found.shape, found.dtype) == (clean.shape, pixels(IN / name).dtype)
        assert psnr(found, clean, peak) > 27, name
    np.testing.assert_array_equal(pixels("out/alpha.png")[..., 3], alpha)
    assert psnr(pixels("out/alpha.png")[..., :3]) > 28


@pytest.mark.slow
def test_a_bad_file_is_named_others_go_on_and_the_same_command_resumes(command: Command):
    write(IN / "a.png", noisy(25))
    (IN / "bad.png").write_text("no image")
    np.save(IN / "nan.npy", np.full((32, 32), np.nan, np.float32))
    ended = run(command, IN)
    assert ended.code == 2
    assert [name in ended.err for name in ("bad.png", "nan.npy", "a.png")] == [True, True, False]
    stamp = Path("out/a.png").stat().st_mtime_ns
    again = run(command, IN)
    assert again.code == 2 and "1 done before" in again.out and Path("out/a.png").stat().st_mtime_ns == stamp
    Path("out/a.png").unlink()
    assert "1 of 3 files denoised" in run(command, IN).out
    assert "--overwrite" in run(command, IN, minutes=1).err


@pytest.mark.slow
def test_images_of_one_kind_are_adapted_to_together(tmp_path: Path):
    for name, clean in (("a", CLEAN), ("b", CLEAN[::-1])):
        np.save(tmp_path / f"{name}.npy", (clean + np.random.default_rng(1).normal(0, 25, clean.shape)))
    words = ["-m", "n2n_lightning.denoise", "a.npy", "b.npy", "--output", "out", "--minutes", "0.05"]
    ended = run_warm(words, tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in (tmp_path / "out/denoise.jsonl").read_text().splitlines()]
    assert [entry["output"] for entry in found] == ["a.npy", "b.npy"]
    assert all(entry["adapted_minutes"] in (0, 0.05) for entry in found)
    assert psnr(np.load(tmp_path / "out/a.npy")) > psnr(np.load(tmp_path / "a.npy")) + 8


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--minutes", "-1"], "0 or more, got -1"),
        (["--minutes", "nan"], "got nan"),
        (["--device", "no"], "--device no"),
    ],
)
def test_wrong_options_are_refused(command: Command, words: list[str], text: str):
    write(IN / "a.png", noisy(25))
    ended = command(str(IN), "--output", "out", *words, main=denoise.main)
    assert ended.code == 2 and text in ended.err and not Path("out").exists()
