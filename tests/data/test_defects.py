"""Copies and dead frames: refused and named, or left out on request, in every source of two noisy images or more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from numbered_images import make_data
from PIL import Image

from n2n_lightning.data.arrays import ArrayData
from n2n_lightning.data.defects import constant_share
from n2n_lightning.data.paired import BurstData, PairsData
from n2n_lightning.data.pairs import STAGES

Array = npt.NDArray[Any]


def frames(count: int, seed: int = 0) -> Array:
    """(N, 40, 48) uint8"""
    return np.random.default_rng(seed).integers(0, 200, (count, 40, 48)).astype(np.uint8)


def write_frames(folder: Path, images: Array, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"f{number}.png", **options)
    return folder


def burst(folder: Path, root: Path, **settings: Any) -> BurstData:
    return make_data(BurstData, folder, root=str(root), **settings)


def names_left(data: BurstData | PairsData) -> list[str]:
    return [f"{Path(image.name).name}" for scene in data.content.scenes for image in scene.noisy]


@pytest.mark.parametrize("how", ["same bytes", "saved again", "another format"])
def test_copies_are_found_by_pixels_and_each_is_named_with_its_own_original(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
):
    images = frames(4)
    root = write_frames(tmp_path / "root", images)
    for original, copy in ((0, 4), (1, 5)):
        if how == "same bytes":
            shutil.copy(root / f"f{original}.png", root / f"f{copy}.png")
        elif how == "saved again":
            Image.fromarray(images[original]).save(root / f"f{copy}.png", compress_level=1)
        else:
            tifffile.imwrite(root / f"f{copy}.tif", images[original], photometric="minisblack")
    with pytest.raises(ValueError, match="2 images cannot be used") as caught:
        burst(tmp_path, root).load("train")
    lines = str(caught.value).splitlines()[1:]
    assert [[f"f{n}." in line for n in range(6)] for line in lines] == [
        [n in group for n in range(6)] for group in ((0, 4), (1, 5))
    ]
    assert "data.skip_bad=true" in str(caught.value)
    data = burst(tmp_path, root, skip_bad=True)
    assert names_left(data) == [f"f{n}.png" for n in range(4)]
    assert "is a copy of" in capsys.readouterr().err


def test_pages_that_are_there_twice_are_named_by_number(tmp_path: Path):
    path = tmp_path / "twice.tif"
    tifffile.imwrite(path, np.repeat(frames(3), 2, axis=0), photometric="minisblack")
    with pytest.raises(ValueError) as caught:
        burst(tmp_path, path).load("train")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        f"{path} page {2 * n + 2} is a copy of {path} page {2 * n + 1}" for n in range(3)
    ]
    assert names_left(burst(tmp_path, path, skip_bad=True)) == [f"twice.tif page {n}" for n in (1, 3, 5)]


@pytest.mark.parametrize("kind", ["pages", "files"])
def test_a_burst_of_one_frame_and_its_copies_is_left_out(tmp_path: Path, kind: str):
    same, root = np.repeat(frames(1), 3, axis=0), tmp_path / "root/same"
    if kind == "files":
        write_frames(root, same)
    else:
        root.mkdir(parents=True)
        tifffile.imwrite(root / "a.tif", same, photometric="minisblack")
    with pytest.raises(ValueError, match=r"has fewer than 2 usable frames") as caught:
        burst(tmp_path, root, skip_bad=True).load("train")
    assert "no other is left" in str(caught.value)
    write_frames(tmp_path / "root/good", frames(3, seed=1))
    assert names_left(burst(tmp_path, tmp_path / "root", skip_bad=True)) == ["f0.png", "f1.png", "f2.png"]


@pytest.mark.parametrize("role", ["target", "clean"])
def test_a_pair_with_a_copy_is_left_out_whole(tmp_path: Path, role: str):
    folders = {name: tmp_path / name for name in ("source", "target", "clean")}
    images = {name: frames(4, seed) for seed, name in enumerate(folders)}
    for name, folder in folders.items():
        write_frames(folder, images[name])
    Image.fromarray(images["source"][2]).save(folders[role] / "f2.png", compress_level=1)
    given = {name: str(folder) for name, folder in folders.items()}
    with pytest.raises(ValueError, match=rf"{role}/f2\.png is a copy of .*source/f2\.png"):
        make_data(PairsData, tmp_path, **given).load("train")
    left = make_data(PairsData, tmp_path, **given, skip_bad=True)
    assert len(left.content.scenes) == 3 and names_left(left).count("f2.png") == 0
    write_frames(folders[role], images["source"], compress_level=1)
    with pytest.raises(ValueError, match="no other is left"):
        make_data(PairsData, tmp_path, **given, skip_bad=True).load("train")


def test_a_folder_that_is_paired_with_itself_is_refused(tmp_path: Path):
    folder = str(write_frames(tmp_path / "root", frames(3)))
    with pytest.raises(ValueError, match=r"f0\.png is there twice"):
        make_data(PairsData, tmp_path, source=folder, target=folder).load("train")


@pytest.mark.parametrize("role", ["target", "clean"])
def test_copies_among_arrays_are_named_by_place(role: str):
    images = {"source": frames(3), "target": frames(3, seed=1)} | {role: frames(3)}
    with pytest.raises(ValueError, match=rf"{role}\[0\] is a copy of source\[0\]"):
        ArrayData(**images, crop_px=16).load("train")


@pytest.mark.parametrize("dead", ["black", "grey", "most of it black"])
def test_a_dead_frame_is_named_and_left_out_on_request(tmp_path: Path, dead: str):
    images = frames(5)
    images[3, : 30 if "most" in dead else 40] = 80 if dead == "grey" else 0
    path = tmp_path / "burst.tif"
    tifffile.imwrite(path, images, photometric="minisblack")
    with pytest.raises(ValueError, match=r"burst\.tif page 4 (holds|has rows of) one value only") as caught:
        burst(tmp_path, path).load("train")
    assert "page 3" not in str(caught.value) and "data.skip_bad=true" in str(caught.value)
    assert names_left(burst(tmp_path, path, skip_bad=True)) == [f"burst.tif page {n}" for n in (1, 2, 3, 5)]


def test_dead_frames_are_called_dead_and_not_copies(tmp_path: Path):
    images = frames(5)
    images[1] = images[3] = 0
    root = write_frames(tmp_path / "root", images)
    with pytest.raises(ValueError) as caught:
        burst(tmp_path, root).load("train")
    assert str(caught.value).count("holds one value only (0)") == 2 and "copy" not in str(caught.value)


def test_a_dead_target_is_named(tmp_path: Path):
    source, target = frames(3), frames(3, seed=1)
    target[1] = 7
    with pytest.raises(ValueError, match=r"^target\[1\] holds one value only \(7\)"):
        ArrayData(source=source, target=target, crop_px=16).load("train")


def test_dark_frames_of_few_photons_are_not_dead(tmp_path: Path):
    images = np.random.default_rng(0).poisson(0.01, (6, 40, 48)).astype(np.uint8)
    assert constant_share(images[0][..., None]) > 0.4, "rows without any photon"
    root = write_frames(tmp_path / "root", images)
    assert len(names_left(burst(tmp_path, root))) == 6


# Copies across scenes


def test_scenes_that_share_a_frame_go_to_one_stage(tmp_path: Path):
    images = frames(12)
    for scene in range(6):
        write_frames(tmp_path / f"root/{scene}", images[2 * scene : 2 * scene + 2], compress_level=scene)
    shutil.copy(tmp_path / "root/0/f0.png", tmp_path / "root/5/f2.png")
    Image.fromarray(images[1]).save(tmp_path / "root/4/f2.png", compress_level=9)
    for seed in range(8):
        regions = burst(tmp_path, tmp_path / "root", seed=seed, val_fraction=0.4).content.regions
        stage = {region.scene: stage for stage in STAGES for region in regions[stage]}
        assert stage[0] == stage[4] == stage[5] and len(stage) == 6 and set(stage.values()) == set(STAGES)


def test_scenes_that_all_share_a_frame_are_cut_at_the_same_place(tmp_path: Path):
    images = frames(4)
    for scene in range(3):
        write_frames(tmp_path / f"root/{scene}", images[[0, scene + 1]])
    regions = burst(tmp_path, tmp_path / "root").content.regions
    assert {region.scene for region in regions["train"]} == {region.scene for region in regions["val"]} == {0, 1, 2}
    assert len({region[1:] for region in regions["train"]}) == len({region[1:] for region in regions["val"]}) == 1
    (_, top, left, height, width), (_, val_top, val_left, *_) = regions["train"][0], regions["val"][0]
    assert (top + height <= val_top) or (left + width <= val_left)


def test_a_copy_of_a_training_frame_in_validation_is_refused_by_pixels(tmp_path: Path):
    write_frames(tmp_path / "root", frames(3))
    write_frames(tmp_path / "val", np.concatenate([frames(2, seed=1), frames(1)]), compress_level=1)
    with pytest.raises(ValueError, match="is among the training images too"):
        burst(tmp_path, tmp_path / "root", val_root=str(tmp_path / "val")).load("train")
