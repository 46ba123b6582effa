"""``doctor``: what it says of noisy images, and its exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Command
from small_runs import read_json

from n2n_lightning import doctor
from n2n_lightning.diagnosis import Finding


def frames(**changes: np.ndarray) -> np.ndarray:
    """Return six noisy frames of a scene, (6, 96, 96) uint16; ``frame3=...`` replaces one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    scene = 1000 + 400 * np.sin(x / 5) * np.cos(y / 7) + 3 * x
    noisy = np.rint(scene + rng.normal(0, 60, (6, 96, 96))).astype(np.uint16)
    for name, frame in changes.items():
        noisy[int(name.removeprefix("frame"))] = frame
    return noisy


def examine(command: Command, folder: Path, pages: np.ndarray) -> tuple[int, dict]:
    tifffile.imwrite(folder / "burst.tif", pages, photometric="minisblack")
    line = ("data=burst", f"data.root={folder / 'burst.tif'}", "output=found", "data.cache_dir=cache")
    ended = command(*line, main=doctor.main)
    assert (folder / "found/doctor.png").stat().st_size > 1000
    return ended.code, read_json(folder / "found/doctor.json")


def test_good_frames_are_fine(command: Command, tmp_path: Path):
    code, found = examine(command, tmp_path, frames())
    assert code == 0 and found["verdict"] == "fine" and not found["findings"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"frame3": np.zeros((96, 96), np.uint16)}, "dead_frame"), ({"frame5": frames()[1]}, "copy")],
)
def test_frames_that_cannot_work_are_named(command: Command, tmp_path: Path, changes: dict, kind: str):
    code, found = examine(command, tmp_path, frames(**changes))
    assert code == 2 and found["verdict"] == "cannot"
    assert kind in [finding["kind"] for finding in found["findings"]]


def test_the_last_line_is_the_command_with_what_was_advised(command: Command, tmp_path: Path):
    pages = frames()
    pages[3:] = np.roll(pages[3:], 3, axis=1)
    tifffile.imwrite(tmp_path / "burst.tif", pages, photometric="minisblack")
    ended = command("data.root=burst.tif", "data.cache_dir=cache", "output=found", main=doctor.main)
    *_, last = ended.out.splitlines()
    assert last.split()[:2] == ["next:", "python"] and {"data=burst", "data.root=burst.tif", "data.align=true"} < set(
        last.split()
    )
    assert "output=found" not in last


def test_copies_alone_leave_nothing_to_train_on(command: Command, tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number, page in enumerate(frames()[:3]):
            tifffile.imwrite(tmp_path / folder / f"{number}.tif", page, photometric="minisblack")
    pairs = ("data=pairs", "data.source=a", "data.target=b", "data.cache_dir=cache")
    ended = command(*pairs, "output=found", main=doctor.main)
    *_, last = ended.out.splitlines()
    assert ended.code == 2 and "n2n_lightning.train" not in last
    assert "3 images cannot be used" in last and "no other is left" in last


def test_one_copy_among_frames_is_left_out_by_the_last_line(command: Command, tmp_path: Path):
    tifffile.imwrite(tmp_path / "burst.tif", frames(frame5=frames()[1]), photometric="minisblack")
    line = ("data.root=burst.tif", "data.cache_dir=cache", "data.crop_px=32", "output=found")
    ended = command(*line, main=doctor.main)
    assert ended.code == 2 and ended.out.splitlines()[-1].endswith("data.skip_bad=true")


def test_cosmic_rays_ask_for_a_loss_and_no_range_where_training_finds_it(command: Command, tmp_path: Path):
    pages = frames()
    pages[[0, 2, 4], [10, 40, 80], 50] = 60000
    tifffile.imwrite(tmp_path / "burst.tif", pages, photometric="minisblack")
    ended = command("data.root=burst.tif", "data.cache_dir=cache", "output=found", main=doctor.main)
    assert "far out" in ended.out and ended.out.splitlines()[-1].endswith(" loss=l1")
    assert "data.range" not in ended.out


def test_many_faulty_values_ask_for_a_range_that_holds_the_others(command: Command, tmp_path: Path):
    pages, faulty = frames(), np.random.default_rng(1).random((6, 96, 96)) < 0.004  # too many for training to leave out
    most = pages[~faulty].max()
    pages[faulty] = 60000
    tifffile.imwrite(tmp_path / "burst.tif", pages, photometric="minisblack")
    ended = command("data.root=burst.tif", "data.cache_dir=cache", "output=found", main=doctor.main)
    last = ended.out.splitlines()[-1].split()
    (advised,) = (float(word.removeprefix("data.range=")) for word in last if word.startswith("data.range="))
    assert most <= advised < 4 * most and last[-1] == "loss=l1"


def test_of_several_ranges_the_widest_is_advised():
    found = [
        Finding("outliers", "harmful", "", (), 1.0, 1.0, "", settings)
        for settings in (("data.range=4095", "loss=l1"), ("data.range=8191",), ("data.range=1023", "loss=l1"))
    ]
    assert sorted(doctor.advised_settings(found)) == ["data.range=8191", "loss=l1"]


def test_data_without_noisy_images_are_refused(command: Command, tmp_path: Path):
    ended = command("data=photos", "output=found", main=doctor.main)
    assert ended.code == 2 and "data must be one of" in ended.err and not Path("found").exists()


def write_singles(folder: Path, images: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    for name, image in images.items():
        tifffile.imwrite(folder / name, image, photometric="minisblack")


def test_files_that_training_would_refuse_beside_the_others_are_named(command: Command, tmp_path: Path):
    first, second, third = frames()[:3]
    write_singles(tmp_path / "root", {"a.tif": first, "b.tif": second, "c.tif": third / np.float32(4095)})
    line = ("data=single", "data.root=root", "data.cache_dir=cache", "output=found")
    ended = command(*line, main=doctor.main)
    assert ended.code == 2 and "fatal: root/c.tif holds 1 channel of float, others 1 channel of uint16" in ended.out
    assert "scenes: 2," in ended.out and "next:" not in ended.out
    ended = command(*line, "data.skip_bad=true", main=doctor.main)
    assert ended.code == 0 and "c.tif" in ended.err and "data.skip_bad=true" in ended.out.splitlines()[-1]


def test_correlated_noise_of_single_images_asks_for_another_loss(command: Command, tmp_path: Path):
    noise = np.random.default_rng(0).normal(0, 100, (4, 130, 129))
    shared = (noise[:, :, 1:] + noise[:, :, :-1])[:, :128]  # by neighbours in rows
    write_singles(tmp_path / "root", {f"{n}.tif": (2000 + one).astype(np.uint16) for n, one in enumerate(shared)})
    ended = command("data=single", "data.root=root", "data.cache_dir=cache", "output=found", main=doctor.main)
    assert ended.out.splitlines()[-1].endswith("loss=noise2void loss.mask=auto")
