"""``doctor``: what it says of noisy images, and its exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Command
from small_runs import read_json

from n2n_lightning import doctor


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


def test_data_without_noisy_images_are_refused(command: Command, tmp_path: Path):
    ended = command("data=photos", "output=found", main=doctor.main)
    assert ended.code == 2 and "data must be one of" in ended.err and not Path("found").exists()
