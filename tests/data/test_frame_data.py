"""Frames of other brightness or at another place: warned of, left out where worthless, corrected on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from conftest import Command
from numbered_images import load_all, make_data
from skimage import data
from small_runs import read_json

from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.paired import BurstData, PairsData

Array = npt.NDArray[Any]
SD = 12
BOTH = {"match_levels": True, "align": True}


def picture(height: int = 150, width: int = 170) -> Array:
    return data.camera()[100 : 100 + height, 100 : 100 + width] * 0.7 + 30


def noisy(frames: list[Array], dtype: str = "uint16", seed: int = 0) -> Array:
    """(N, H, W)"""
    rng = np.random.default_rng(seed)
    values = np.stack([frame + rng.normal(0, SD, frame.shape) for frame in frames])
    return np.clip(np.rint(values), 0, 255 if dtype == "uint8" else 65535).astype(dtype)


def write_tiff(path: Path, frames: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames, photometric="minisblack")
    return path


def burst(folder: Path, frames: Array, **settings: Any) -> BurstData:
    path = write_tiff(folder / "burst.tif", frames)
    loaded = make_data(BurstData, folder, root=str(path), **settings)
    assert loaded.content
    return loaded


def bleached(count: int = 5) -> list[Array]:
    return [picture() * gain for gain in np.linspace(1, 0.6, count)]


def drifting(count: int = 5) -> list[Array]:
    """Return frames whose picture moves down by 2 px and left by 1 px each."""
    large = picture(180, 200)
    return [large[20 - 2 * n : 170 - 2 * n, 10 + n : 180 + n] for n in range(count)]


def test_frames_that_are_alike_give_no_warning(tmp_path: Path):
    assert burst(tmp_path, noisy([picture()] * 6)).warnings == []


def test_bleaching_is_named_with_its_frames_and_the_setting(tmp_path: Path):
    (warning,) = burst(tmp_path, noisy(bleached())).warnings
    for words in ("page 2 (gain 0.90)", "page 5 (gain 0.60)", "burst.tif page 1", "data.match_levels=true"):
        assert words in warning
    assert "page 1 (" not in warning


def test_an_offset_is_named(tmp_path: Path):
    (warning,) = burst(tmp_path, noisy([picture(), picture(), picture() + 6])).warnings
    assert "page 3 (level +5.9" in warning and "page 2" not in warning and "data.match_levels=true" in warning


def test_drift_is_named_with_its_frames_and_the_setting(tmp_path: Path):
    (warning,) = burst(tmp_path, noisy(drifting())).warnings
    assert "page 2 (2.0 px down, 1.0 left)" in warning and "data.align=true" in warning
    (warning,) = burst(
        tmp_path / "half", noisy([picture(), np.roll((picture() + np.roll(picture(), 1, 0)) / 2, 0)])
    ).warnings
    assert "0.5 px down" in warning


def test_pairs_and_arrays_are_looked_at_too(tmp_path: Path):
    source, target = noisy([picture()] * 3), noisy([picture() * 0.8] * 3, seed=1)
    arrays = ArrayData(source=source, target=target, crop_px=16)
    assert arrays.content and "target[0] (gain 0.8" in arrays.warnings[0]
    assert "in 2 of 2 other scenes" in arrays.warnings[0]
    for name, images in (("source", source), ("target", target)):
        for number, image in enumerate(images):
            write_tiff(tmp_path / name / f"{number}.tif", image)
    folders = {name: str(tmp_path / name) for name in ("source", "target")}
    pairs = make_data(PairsData, tmp_path, **folders)
    assert pairs.content and "target/0.tif (gain 0.8" in pairs.warnings[0]


def test_a_frame_of_dark_noise_ends_the_run_or_is_left_out(tmp_path: Path):
    frames = noisy([picture(), picture(), np.full_like(picture(), 40), picture()])
    with pytest.raises(ValueError, match=r"burst\.tif page 3 does not show what the others show.*skip_bad"):
        burst(tmp_path, frames)
    (scene,) = burst(tmp_path, frames, skip_bad=True).content.scenes
    assert [image.number for image in scene.noisy] == [0, 1, 3]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_levels_are_matched_to_the_first_frame(tmp_path: Path, dtype: str):
    matched = burst(tmp_path, noisy(bleached(), dtype), match_levels=True)
    (scene,) = matched.content.scenes
    means = [float(image.read(0, 0, *image.size).mean()) for image in scene.noisy]
    assert max(means) - min(means) < 1
    pair = load_all(matched, "train")
    assert pair.source.dtype == pair.target.dtype == torch.float32 and matched.warnings == []
    assert (pair.source - pair.target).mean((1, 2, 3)).abs().max() < 8, "of 16x16 px with noise of up to 20"
    assert matched.corrections["matched"]["gain_deviation"] == pytest.approx(0.4, abs=0.01)
    assert matched.peak == burst(tmp_path, noisy(bleached(), dtype)).peak, "the range stays"


def test_frames_are_aligned_to_the_first_and_cut_to_what_all_show(tmp_path: Path):
    aligned = burst(tmp_path, noisy(drifting()), align=True)
    (scene,) = aligned.content.scenes
    assert scene.size == (150 - 8, 170 - 4) and aligned.warnings == []
    whole = np.stack([image.read(0, 0, *scene.size)[..., 0] for image in scene.noisy])
    assert np.abs(whole - drifting()[0][:142, 4:]).mean() < SD, "the part of the first frame that all show"
    assert np.abs(whole.mean(0) - drifting()[0][:142, 4:]).mean() < SD / 2
    assert aligned.corrections["aligned"]["shift_px"] == pytest.approx(8, abs=0.1)
    for regions in aligned.content.regions.values():
        assert all(r.top + r.height <= 142 and r.left + r.width <= 166 for r in regions)
    load_all(aligned, "train"), load_all(aligned, "val")


def test_both_corrections_go_together_and_a_clean_image_goes_with_the_first_frame():
    moved = drifting(2)
    source, target = noisy(moved[:1], "float32"), noisy([moved[1] * 0.7 + 9], "float32", seed=1)
    clean = moved[0][None].astype(np.float32)
    val = load_all(ArrayData(source=source, target=target, clean=clean, crop_px=16, val_fraction=1, **BOTH), "val")
    assert val.clean is not None and val.target is not None
    assert (val.source - val.clean).std() == pytest.approx(SD, rel=0.05)
    assert (val.target - val.clean).std() == pytest.approx(SD / 0.7, rel=0.1)
    assert (val.target - val.clean).mean().abs() < 1


def test_the_devices_memory_holds_corrected_images(tmp_path: Path):
    corrected = burst(tmp_path, noisy([f * g for f, g in zip(drifting(), (1, 1, 0.8, 1, 0.7), strict=True)]), **BOTH)
    source = corrected.load("val")
    from_files = source.batch(torch.arange(len(source)), torch.Generator())
    source.to(torch.device("cpu"))
    from_memory = source.batch(torch.arange(len(source)), torch.Generator())
    assert torch.equal(from_files.source, from_memory.source) and torch.equal(from_files.target, from_memory.target)


def test_corrections_need_two_noisy_images(tmp_path: Path):
    with pytest.raises(ValueError, match=r"match_levels and align need 2 noisy images"):
        ArrayData(source=noisy([picture()] * 2), crop_px=16, **BOTH).load("train")
    with pytest.raises(ValueError, match=r"is too small: 32 px a side"):
        burst(tmp_path, noisy([picture()[:20, :40]] * 3), **BOTH, crop_px=8)


@pytest.mark.slow
def test_train_warns_and_records(command: Command, tmp_path: Path):
    write_tiff(tmp_path / "given/bleach.tif", noisy(bleached()))
    settings = ["data=burst", "data.root=given/bleach.tif", "model=convtrans_relu", "debug=fast", "data.crop_px=16"]
    settings += ["trainer.accelerator=cpu", "data.train_pairs=8", "data.batch_size=4", "data.cache_dir=given/cache"]
    ended = command(*settings, "hydra.run.dir=run")
    assert ended.code == 0 and "warning: frames differ in brightness" in ended.err
    (warning,) = read_json(tmp_path / "run/result.json")["data_warnings"]
    assert "page 5 (gain 0.60)" in warning and warning in ended.err
    ended = command(*settings, "hydra.run.dir=matched", "data.match_levels=true", "data.align=true")
    assert ended.code == 0 and "warning" not in ended.err
    result = read_json(tmp_path / "matched/result.json")
    assert result["data_warnings"] == [] and result["data"]["matched"]["gain_deviation"] > 0.38
    assert result["data"]["aligned"]["shift_px"] < 0.3
