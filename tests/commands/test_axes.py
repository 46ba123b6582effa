"""Stacks and dyes from training to the denoised file, with axes that are named or given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import Command
from predict_runs import denoise
from small_runs import evaluate_main, read_json, smooth_images

QUICK = (
    *(
        "data.crop_px=16",
        "data.train_pairs=32",
        "data.batch_size=16",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
    ),
    *("model=dncnn", "model.layers=2", "model.width=4"),
)


def volume(frames: int) -> np.ndarray:
    """Return (T, 4, 48, 48) uint16: four smooth images, each ``frames`` times with noise."""
    clean = smooth_images(4, 48, seed=0)[:, 0] * 10 + 300
    noisy = clean + np.random.default_rng(0).normal(0, 100, (frames, *clean.shape))
    return np.rint(noisy.clip(0, 65535)).astype(np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagej", "ome", "plain", "npy"])
def test_a_burst_of_volumes_gives_the_same_run_in_every_form(command: Command, name: str):
    options: dict[str, dict[str, Any]] = {
        "imagej": {"imagej": True, "metadata": {"axes": "TZYX"}},
        "ome": {"ome": True, "metadata": {"axes": "TZYX"}},
        "plain": {},
    }
    values = volume(3)
    for folder, kind in (("first", "ome"), ("second", name)):
        Path(folder).mkdir()
        if kind == "npy":
            np.save(f"{folder}/a.npy", values)
        else:
            tifffile.imwrite(f"{folder}/a.tif", values, photometric="minisblack", **options[kind])
        given = () if kind in ("imagej", "ome") else ("data.axes=TZYX",)
        ended = command(*QUICK, "data=burst", f"data.root={folder}", *given, f"hydra.run.dir=outputs/{folder}")
        assert ended.code == 0, ended.err
    first, second = (read_json(Path("outputs") / folder / "result.json") for folder in ("first", "second"))
    assert first["val/psnr_pairs"] == second["val/psnr_pairs"] and first["val/loss"] == second["val/loss"]
    assert read_json(Path("outputs/first/result.json"))["noisy_psnr_pairs"] > 20, "slices are not mixed"


@pytest.mark.slow
def test_slices_that_may_be_frames_end_the_run(command: Command):
    Path("in").mkdir()
    tifffile.imwrite("in/a.tif", volume(1)[0], imagej=True, metadata={"axes": "ZYX"})
    ended = command(*QUICK, "data=burst", "data.root=in")
    assert ended.code == 2 and "in/a.tif holds 4 images that its metadata calls slices (Z)" in ended.err
    assert "data.axes=TYX" in ended.err and "data=single" in ended.err
    assert command(*QUICK, "data=single", "data.root=in").code == 0


@pytest.mark.slow
def test_four_dyes_from_training_to_the_denoised_file(command: Command):
    dyes = np.moveaxis(volume(1)[0], 0, -1)
    Path("in").mkdir()
    tifffile.imwrite("in/a.tif", dyes)  # tifffile marks the fourth as opacity
    ended = command(*QUICK, "data=single", "data.root=in", "hydra.run.dir=outputs/dyes")
    assert ended.code == 2 and "set data.axes=YXC if channel 4 is no opacity" in ended.err
    data = ("data=single", "data.root=in", "data.axes=YXC", "data.crop_px=16")
    ended = command(*QUICK, *data, "hydra.run.dir=outputs/dyes")
    assert ended.code == 0 and read_json(Path("outputs/dyes/result.json"))["image_shape"] == [4, 16, 16]
    ended = command("checkpoint=outputs/dyes", *data, "output=scores.json", main=evaluate_main)
    assert ended.code == 0 and "val/loss" in read_json(Path("scores.json"))
    assert denoise(command, "in/a.tif", model="outputs/dyes").code == 2
    assert denoise(command, "in/a.tif", "--axes", "YXC", model="outputs/dyes").code == 0
    assert (tifffile.imread("out/a.tif") != dyes).any((0, 1)).all(), "each dye is denoised"
