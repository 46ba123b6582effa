"""``data=burst``: what is a scene, which frames make a pair, and what validation sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numbered_images import Origin, load_all, make_data, numbered_image, origins, write

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.paired import BurstData
from n2n_lightning.data.pairs import STAGES
from n2n_lightning.data.seeding import seeded_generator


def burst(folder: Path, root: str = "root", **settings: Any) -> BurstData:
    return make_data(BurstData, folder, root=str(folder / root), **settings)


def write_burst(folder: Path, scene: int, frames: int, **size: int) -> Path:
    for frame in range(frames):
        write(folder / f"{frame}.npy", numbered_image(scene, frame, **size))
    return folder


def pages(scene: int, frames: int) -> np.ndarray:
    return np.stack([numbered_image(scene, frame) for frame in range(frames)])


def seen(data: BurstData) -> set[Origin]:
    """Every frame that training or validation reads, at its scene's place (0, 0)."""
    batches = [load_all(data, stage) for stage in STAGES]
    found = [o for pair in batches for o in origins(pair.source) + origins(pair.target)]
    return {Origin(o.scene, o.frame, 0, 0) for o in found}


# What is a scene


@pytest.mark.parametrize("layout", ["frames", "tif", "npy", "folder of a tif", "pictures"])
def test_one_scene(tmp_path: Path, layout: str):
    root = {"tif": "root/burst.tif", "npy": "root/burst.npy"}.get(layout, "root")
    if layout == "frames":
        write_burst(tmp_path / "root", 0, 3)
    elif layout == "pictures":
        for frame, name in enumerate(("a.png", "b.bmp", "c.tif")):
            write(tmp_path / "root" / name, numbered_image(0, frame))
    else:
        write(tmp_path / "root" / ("burst.npy" if layout == "npy" else "burst.tif"), pages(0, 3))
    assert seen(burst(tmp_path, root)) == {Origin(0, frame, 0, 0) for frame in range(3)}


@pytest.mark.parametrize("layout", ["folders", "files", "folders in folders", "both"])
def test_many_scenes(tmp_path: Path, layout: str):
    for scene in range(5):
        folder = tmp_path / "root" / (f"x/{scene}" if layout == "folders in folders" else str(scene))
        if layout == "files" or (layout == "both" and scene % 2):
            write(folder.with_suffix(".tif"), pages(scene, 2))
        else:
            write_burst(folder, scene, 2)
    assert seen(burst(tmp_path)) == {Origin(scene, frame, 0, 0) for scene in range(5) for frame in (0, 1)}


# Which frames make a pair


@pytest.mark.slow
def test_every_ordered_pair_of_frames_is_drawn_equally_often_and_no_frame_with_itself(tmp_path: Path):
    data = burst(tmp_path, str(write_burst(tmp_path / "root", 0, 4)), train_pairs=1200, crop_px=4)
    pair = load_all(data, "train")
    drawn = Counter((one.frame, other.frame) for one, other in zip(*map(origins, pair[:2]), strict=True))
    assert set(drawn) == {(one, other) for one in range(4) for other in range(4) if one != other}
    # 100 each; chi-squared with 11 degrees of freedom: above 45 once in 200,000 tries, and the seed is fixed
    assert sum((count - 100) ** 2 / 100 for count in drawn.values()) < 45


@pytest.mark.slow
def test_scenes_of_any_number_of_frames_are_never_mixed(tmp_path: Path):
    for scene, frames in enumerate((2, 3, 5, 2)):
        write_burst(tmp_path / "root" / str(scene), scene, frames)
    data = burst(tmp_path, train_pairs=600, crop_px=8)
    for stage in STAGES:
        pair = load_all(data, stage)
        ones, others = origins(pair.source), origins(pair.target)
        assert [one.place for one in ones] == [other.place for other in others]
        assert all(one.frame != other.frame for one, other in zip(ones, others, strict=True))
    drawn = {(o.scene, o.frame) for o in origins(load_all(data, "train").source)}
    scenes = {scene for scene, _ in drawn}
    assert len(scenes) == 3 and drawn == {(s, f) for s in scenes for f in range((2, 3, 5, 2)[s])}


def test_training_pairs_are_drawn_anew_each_epoch_and_follow_the_batchs_generator(tmp_path: Path):
    source = burst(tmp_path, str(write_burst(tmp_path / "root", 0, 4))).load("train")
    first, again, other = (origins(source.batch(torch.arange(20), seeded_generator(0, e, 0)).source) for e in (1, 1, 2))
    assert first == again != other


# Training and validation


def test_scenes_are_held_back_whole(tmp_path: Path):
    for scene in range(6):
        write_burst(tmp_path / "root" / str(scene), scene, 2, height=30 + scene, width=40 - scene)
    data = burst(tmp_path, val_fraction=0.4)
    train, val = ({o.scene for o in origins(load_all(data, stage).source)} for stage in STAGES)
    assert train | val == set(range(6)) and not train & val and len(val) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(64, 40), (40, 64)])
def test_a_lone_scene_is_cut_in_two_and_no_pixel_is_shared(tmp_path: Path, height: int, width: int):
    write_burst(tmp_path / "root", 0, 3, height=height, width=width)
    data = burst(tmp_path, train_pairs=400, val_fraction=0.3)
    painted = np.zeros((2, height, width), int)
    for number, stage in enumerate(STAGES):
        pair = load_all(data, stage)
        for origin in origins(pair.source) + origins(pair.target):
            painted[number, origin.top : origin.top + 16, origin.left : origin.left + 16] += 1
    assert not ((painted[0] > 0) & (painted[1] > 0)).any()
    cut = round(64 * 0.7)
    trained = painted[0] > 0
    assert trained.any(0 if height > width else 1).all(), "all across the shorter side"
    assert trained.any(1 if height > width else 0).tolist() == [i < cut for i in range(64)]
    assert painted[1].max() == 2, "each tile once as source and once as target"


def test_a_scene_too_small_for_two_crops_is_named(tmp_path: Path):
    write_burst(tmp_path / "root", 0, 2, height=31, width=30)
    with pytest.raises(ValueError, match=r"root/0\.npy is the only image.* 30x31 px are too small .* 16x16"):
        burst(tmp_path).load("train")


def test_validation_has_a_third_frame_where_all_its_scenes_have_three(tmp_path: Path):
    for scene, frames in enumerate((3, 2, 4)):
        write_burst(tmp_path / "root" / str(scene), scene, frames)
    write_burst(tmp_path / "val/3", 3, 3)
    write_burst(tmp_path / "val/4", 4, 4)
    pair = load_all(burst(tmp_path, val_root=str(tmp_path / "val")), "val")
    one, two, three = (origins(images) for images in (pair.source, pair.target, pair.third))
    assert [o.place for o in one] == [o.place for o in two] == [o.place for o in three]
    assert all(len({a.frame, b.frame, c.frame}) == 3 for a, b, c in zip(one, two, three, strict=True))
    assert {(o.scene, o.frame) for o in one} == {*((3, f) for f in range(3)), *((4, f) for f in range(4))}

    write_burst(tmp_path / "val/5", 5, 2)
    pair = load_all(burst(tmp_path, val_root=str(tmp_path / "val")), "val")
    assert pair.third is None and pair.clean is None
    ones, others = origins(pair.source), origins(pair.target)
    assert all(a.place == b.place and a.frame != b.frame for a, b in zip(ones, others, strict=True))


def test_validation_is_drawn_once_for_all_and_grouped(tmp_path: Path):
    for scene in range(4):
        write_burst(tmp_path / "root" / str(scene), scene, 3)
    data = burst(tmp_path, val_fraction=0.5)
    first, second = load_all(data, "val", seed=1), load_all(data, "val", seed=2)
    assert origins(first.source) == origins(second.source) and origins(first.target) == origins(second.target)
    assert first.group is not None
    by_group = {
        group: {o.scene for o, g in zip(origins(first.source), first.group.tolist(), strict=True) if g == group}
        for group in first.group.tolist()
    }
    assert len(by_group) == 2 and all(len(scenes) == 1 for scenes in by_group.values())


def test_pairs_decide_which_epoch_is_best(tmp_path: Path):
    write_burst(tmp_path / "root", 0, 2)
    datamodule = NoisyPairDataModule(burst(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/psnr_pairs"


# What is refused


@pytest.mark.parametrize("layout", ["folder", "file", "a folder of many"])
def test_a_burst_of_one_frame_is_refused_and_named(tmp_path: Path, layout: str):
    if layout == "a folder of many":
        write_burst(tmp_path / "root/good", 0, 3)
    name = "root/lone.npy" if layout != "a folder of many" else "root/bad/lone.npy"
    write(tmp_path / name, numbered_image(1))
    with pytest.raises(ValueError, match=rf"{name} is a burst of one frame; a burst needs 2 or more") as caught:
        burst(tmp_path, name if layout == "file" else "root").load("train")
    assert "good" not in str(caught.value)


def test_frames_of_two_sizes_are_refused_and_both_named(tmp_path: Path):
    write_burst(tmp_path / "root", 0, 3)
    write(tmp_path / "root/2.npy", numbered_image(0, 2, height=41))
    with pytest.raises(ValueError, match=r"root/2\.npy holds 48x41 px.*root/0\.npy 48x40 px"):
        burst(tmp_path).load("train")


def test_a_burst_does_without_a_bad_frame_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_burst(tmp_path / "root", 0, 4)
    (tmp_path / "root/1.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"root/1\.npy cannot be read"):
        burst(tmp_path).load("train")
    capsys.readouterr()
    assert {o.frame for o in seen(burst(tmp_path, skip_bad=True))} == {0, 2, 3}
    assert "root/1.npy cannot be read" in capsys.readouterr().err


def test_a_burst_of_which_one_frame_is_left_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for scene in range(3):
        write_burst(tmp_path / "root" / str(scene), scene, 2)
    (tmp_path / "root/1/0.npy").write_bytes(b"no array")
    assert {o.scene for o in seen(burst(tmp_path, skip_bad=True))} == {0, 2}
    told = capsys.readouterr().err
    assert "root/1/0.npy cannot be read" in told and "root/1/1.npy is a burst of one frame" in told


# Axes: frames are counted by time, and slices are scenes


def grey_frames(scenes: int, frames: int) -> np.ndarray:
    """Return (T, Z, H, W) uint16 whose values tell time and slice: 100 * time + slice."""
    times, slices = np.indices((frames, scenes))
    return np.broadcast_to((100 * times + slices)[..., None, None], (frames, scenes, 40, 48)).astype(np.uint16)


def scenes_of(data: BurstData) -> list[list[tuple[int, int]]]:
    """Return (time, slice) of each image of each scene."""
    return [[divmod(int(i.read(0, 0, 1, 1)[0, 0, 0]), 100) for i in scene.noisy] for scene in data.content.scenes]


EXPECTED = [[(time, number) for time in range(5)] for number in range(3)]
LAYOUTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any], str | None]] = {
    "imagej": ("a.tif", (0, 1, 2, 3), {"imagej": True, "metadata": {"axes": "TZYX"}}, None),
    "ome": ("a.ome.tif", (0, 1, 2, 3), {"ome": True, "metadata": {"axes": "TZYX"}}, None),
    "ome, slices first": ("a.ome.tif", (1, 0, 2, 3), {"ome": True, "metadata": {"axes": "ZTYX"}}, None),
    "pages": ("a.tif", (0, 1, 2, 3), {}, "TZYX"),
    "slices first": ("a.tif", (1, 0, 2, 3), {}, "ZTYX"),
    "npy": ("a.npy", (0, 1, 2, 3), {}, "TZYX"),
    "npy, slices first": ("a.npy", (1, 0, 2, 3), {}, "ztyx"),
    "npy, time last": ("a.npy", (1, 2, 3, 0), {}, "ZYXT"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_are_taken_over_time_and_each_slice_is_a_scene(tmp_path: Path, layout: str):
    name, order, options, axes = LAYOUTS[layout]
    (tmp_path / "root").mkdir()
    values = grey_frames(3, 5).transpose(order)
    if name.endswith(".npy"):
        np.save(tmp_path / "root" / name, values)
    else:
        tifffile.imwrite(tmp_path / "root" / name, values, photometric="minisblack", **options)
    assert scenes_of(burst(tmp_path, axes=axes)) == EXPECTED
    assert scenes_of(burst(tmp_path, f"root/{name}", axes=axes)) == EXPECTED


def test_files_of_slices_are_the_frames_where_the_axes_have_no_time(tmp_path: Path):
    (tmp_path / "root").mkdir()
    for number, volume in enumerate(grey_frames(3, 5)):
        tifffile.imwrite(tmp_path / f"root/{number}.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    assert scenes_of(burst(tmp_path, axes="ZYX")) == EXPECTED
    assert scenes_of(burst(tmp_path, axes="TYX")) == [[(time, z) for z in range(3)] for time in range(5)]
    with pytest.raises(ValueError, match="5 images cannot be used") as caught:
        burst(tmp_path).load("train")
    assert "data.axes=TYX if they are frames of one scene" in str(caught.value)
    assert len(burst(tmp_path, axes="TYX").content.scenes) == 5


@pytest.mark.parametrize(
    ("shape", "options", "fault"),
    [
        ((5, 40, 48), {"imagej": True, "metadata": {"axes": "ZYX"}}, "calls slices .* data.axes=TYX .* data=single"),
        ((2, 5, 40, 48), {"metadata": None}, None),  # pages of one axis: tifffile counts them all
        ((2, 5, 40, 48), {}, "2 of unknown meaning x 5 of unknown meaning.* set data.axes=TZYX"),
        ((5, 40, 48), {"imagej": True}, "is a burst of one frame; .* set data.axes=TYX if its channels are frames"),
    ],
)
def test_a_file_that_does_not_tell_its_frames_is_refused(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], fault: str | None
):
    (tmp_path / "root").mkdir()
    values = np.random.default_rng(0).integers(0, 99, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "root/a.tif", values, photometric="minisblack", **options)
    if fault is None:
        assert [len(scene.noisy) for scene in burst(tmp_path).content.scenes] == [10]
        return
    with pytest.raises(ValueError, match=fault):
        burst(tmp_path).load("train")
    axes = {3: "TYX", 4: "TZYX"}[len(shape)]
    assert burst(tmp_path, axes=axes).content.scenes


def test_axes_that_are_none_are_refused_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match=r"axes must be letters of T, Z, C, Y, X .* got 'TQ'; set data.axes=TYX"):
        burst(tmp_path, axes="TQ")


# Links


def test_scenes_behind_links_are_found_and_broken_links_named(tmp_path: Path):
    for scene in range(4):
        write_burst(tmp_path / f"store/{scene}", scene, 2)
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / f"root/{scene}").symlink_to(f"../store/{scene}")
    (tmp_path / "root/self").symlink_to(".")
    assert seen(burst(tmp_path)) == {Origin(scene, frame, 0, 0) for scene in range(4) for frame in (0, 1)}
    (tmp_path / "root/4").symlink_to("../store/4")
    with pytest.raises(ValueError, match=r"root/4 cannot be read \(FileNotFoundError"):
        burst(tmp_path).load("train")
    assert len(burst(tmp_path, skip_bad=True).content.scenes) == 4


def test_a_score_compares_with_all_other_frames_up_to_ten(tmp_path: Path):
    for frames, others in ((5, (2, 3, 4)), (12, range(2, 10))):
        file = write(tmp_path / f"{frames}.npy", pages(0, frames))
        pair = load_all(burst(tmp_path, file.name), "val")
        assert pair.third is not None and pair.third.dtype == torch.float32
        for own, third in zip(pair.source, pair.third, strict=True):
            number = int(own[0, 0, 0])  # the first channel of a frame holds its number
            mean = sum((number + n) % frames for n in others) / len(others)
            assert third[0].min().item() == third[0].max().item() == pytest.approx(mean, abs=1e-5)


def test_every_scene_can_be_cut_instead_of_held_back(tmp_path: Path):
    for scene in range(3):
        write_burst(tmp_path / "root" / str(scene), scene, 2)
    data = burst(tmp_path, val_areas=True, val_pairs=None)
    seen = {stage: origins(load_all(data, stage).source) for stage in STAGES}
    for stage in STAGES:
        assert {origin.scene for origin in seen[stage]} == {0, 1, 2}, stage
    right = {stage: [origin.left for origin in seen[stage]] for stage in STAGES}
    assert max(right["train"]) + 16 <= min(right["val"]), "no pixel is in both"


def test_areas_and_validation_images_of_their_own_are_refused(tmp_path: Path):
    for scene in range(2):
        write_burst(tmp_path / "root" / str(scene), scene, 2)
        write_burst(tmp_path / "val" / str(scene), scene + 2, 2)
    with pytest.raises(ValueError, match=r"val_areas must be false.*data\.val_areas=false"):
        burst(tmp_path, val_areas=True, val_root=str(tmp_path / "val")).load("val")
