"""Pairs from photographs: the recipe, the choice of photographs, the cache."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from small_runs import photo_data, tensors, write_photograph
from warm_processes import SECONDS, is_running

from n2n_lightning.data import photo_crops, photos
from n2n_lightning.data.pairs import STAGES, CellPairs
from n2n_lightning.data.photo_crops import (
    ArrayKind,
    PhotoArray,
    PhotoCrop,
    box_mean,
    cut_crop,
    float32_mean,
    plan_crop,
    read_photograph,
)
from n2n_lightning.data.photos import PhotoData
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.noise import pixelation
from n2n_lightning.system.errors import SIGINT, SIGTERM


def with_numpy(cells: npt.NDArray[np.uint8], draws: int) -> npt.NDArray[np.uint8]:
    height, width = cells.shape[:2]
    pixels = cells.reshape(height, width, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(8 * height, 8 * width, 3)
    crop = PhotoCrop(pixels, np.arange(256, dtype=np.uint8), is_mirrored=False)
    return crop.pick(np.random.default_rng(7).integers(0, 64, (draws, height, width)))


def with_torch(cells: npt.NDArray[np.uint8], draws: int) -> npt.NDArray[np.uint8]:
    rng = torch.Generator().manual_seed(7)
    return pixelation.draw_cell_pixels(torch.from_numpy(cells)[None].expand(draws, -1, -1, -1, -1), rng).numpy()


DRAWS = pytest.mark.parametrize("drawn", [with_numpy, with_torch])
Drawn = Callable[[npt.NDArray[np.uint8], int], npt.NDArray[np.uint8]]


def random_cells(path: Path, seed: int) -> npt.NDArray[np.uint8]:
    photo = read_photograph(path)
    return cut_crop(photo, plan_crop(photo.size, 0, np.random.default_rng(seed))).cells()


@pytest.fixture(scope="module")
def cells(photographs: Path) -> npt.NDArray[np.uint8]:
    """(32, 32, 64, 3) of a textured picture."""
    return random_cells(photographs / "a.png", 1)


# The recipe


@DRAWS
def test_the_mean_of_many_draws_is_the_clean_pixel(drawn: Drawn, cells: npt.NDArray[np.uint8]):
    draws = drawn(cells, 2000).astype(np.float64)
    spread = np.moveaxis(cells.std(axis=2, dtype=np.float64), -1, 0)
    off = np.abs(draws.mean(0) - box_mean(cells))
    assert spread.mean() > 5, "the picture has no texture to draw from"
    assert (off <= 0.5 + 6 * spread / np.sqrt(len(draws))).all()  # 0.5: the clean pixel is rounded


@DRAWS
def test_a_noisy_pixel_is_one_of_its_cell_at_one_place_for_all_channels(drawn: Drawn, cells: npt.NDArray[np.uint8]):
    for noisy in drawn(cells, 3):
        is_it = (cells == np.moveaxis(noisy, 0, -1)[:, :, None]).all(-1)  # (H, W, K): R, G and B match together
        assert is_it.any(-1).all()


@DRAWS
def test_every_pixel_of_a_cell_is_drawn_equally_often(drawn: Drawn):
    numbered = np.arange(64, dtype=np.uint8)[None, None, :, None].repeat(3, 3)
    counts = np.bincount(drawn(numbered, 6400)[:, 0].ravel(), minlength=64)
    # chi-squared with 63 degrees of freedom: above 124 once in 200,000 tries
    assert ((counts - 100) ** 2 / 100).sum() < 124


@DRAWS
def test_two_draws_are_independent_and_the_noise_is_white(drawn: Drawn, cells: npt.NDArray[np.uint8]):
    noise = drawn(cells, 40).astype(np.float64) - np.moveaxis(cells.mean(2), -1, 0)
    assert abs(correlation(noise[0::2], noise[1::2])) < 5 / np.sqrt(noise[0::2, 0].size)
    assert abs(correlation(noise[..., 1:], noise[..., :-1])) < 5 / np.sqrt(noise[:, 0].size)
    assert correlation(noise[:, 0], noise[:, 1]) > 0.5, "R and G come from the same place"


@DRAWS
def test_flat_cells_have_no_noise(drawn: Drawn):
    flat = np.broadcast_to(np.array([10, 200, 77], np.uint8), (4, 4, 64, 3)).copy()
    assert (drawn(flat, 5) == np.array([10, 200, 77])[:, None, None]).all()


def correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_a_smallest_photograph_is_rendered_as_the_recipe_says(tmp_path: Path):
    """At 160 px there is one crop only, so that all but the flip can be computed by other means."""
    path = write_photograph(tmp_path / "photo.png", width=160, height=160)
    resized = np.asarray(Image.open(path).resize((256, 256), Image.Resampling.BICUBIC), np.float64)
    full = np.rint((resized.mean() + 1.1 * (resized - resized.mean())).clip(0, 255))
    clean = full.reshape(32, 8, 32, 8, 3).mean((1, 3))
    flips = set()
    for seed in range(8):
        means = random_cells(path, seed).mean(2)
        (flipped,) = (flip for flip in (False, True) if np.abs(means - clean[:, :: -1 if flip else 1]).max() < 0.1)
        flips.add(flipped)
    assert flips == {False, True}


def plain_cells(path: Path, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a crop's cells by the recipe as it reads, every pixel in float32: (32, 32, 64, 3)."""
    photo = read_photograph(path)
    side = int(rng.integers(160, min(photo.size) + 1))
    left, top = (int(rng.integers(0, room - side + 1)) for room in photo.size)
    resized = photo.resize((256, 256), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    values = np.asarray(resized, np.float32)
    raised = np.rint((values.mean() + 1.1 * (values - values.mean())).clip(0, 255)).astype(np.uint8)
    upright = raised[:, ::-1] if rng.random() < 0.5 else raised
    return upright.reshape(32, 8, 32, 8, 3).transpose(0, 2, 1, 3, 4).reshape(32, 32, 64, 3)


def plain_draw(cells: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    choice = rng.integers(0, 64, size=(32, 32, 1, 1))
    return np.moveaxis(np.take_along_axis(cells, choice, axis=2)[:, :, 0], -1, 0)


@pytest.mark.parametrize("kind", ["pairs", "supervised", "val", "cells"])
def test_arrays_have_the_bits_of_the_plain_recipe(photographs: Path, tmp_path: Path, kind: ArrayKind):
    """Caches that are already on disk keep their key, so the pixels must not change."""
    paths = (photographs / "a.png", photographs / "sub/d.png")
    array = PhotoArray(tmp_path / "array.npy", kind, 9, paths, (3, 1))
    array.create()
    for part in range(array.parts):
        array.fill(part)
    stored = np.load(array.path)
    for index in range(9):
        rng = np.random.default_rng([3, True, index])
        cells = plain_cells(paths[index % 2], rng)
        if kind == "cells":
            assert np.array_equal(stored[index], cells)
            continue
        clean = np.moveaxis(np.rint(cells.mean(2, dtype=np.float32)), -1, 0)
        assert np.array_equal(stored[0, index], plain_draw(cells, rng))
        assert np.array_equal(stored[1, index], plain_draw(cells, rng) if kind == "pairs" else clean)


@pytest.mark.parametrize("values", [(0, 256), (0, 3), (250, 256), (255, 256)])
def test_the_mean_has_the_bits_of_numpys_mean_in_float32(values: tuple[int, int]):
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(*values, (256, 256, 3), np.uint8)
        assert float32_mean(pixels) == pixels.astype(np.float32).mean()


def test_the_clean_pixel_is_the_rounded_mean(cells: npt.NDArray[np.uint8]):
    exact = np.moveaxis(cells.astype(np.int64).sum(2) / 64, -1, 0)
    assert np.abs(box_mean(cells) - exact).max() <= 0.5


def test_a_pictures_orientation_tag_is_followed(tmp_path: Path):
    upright = write_photograph(tmp_path / "upright.png", width=170, height=200)
    pixels = np.asarray(Image.open(upright))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_photograph(tmp_path / "turned.png"), np.rot90(pixels, -1))


def test_a_grey_or_transparent_picture_is_read_as_rgb(tmp_path: Path):
    grey = np.asarray(Image.open(write_photograph(tmp_path / "photo.png")).convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3 + [grey // 2])).save(tmp_path / "transparent.png")
    for name in ("grey.png", "transparent.png"):
        np.testing.assert_array_equal(read_photograph(tmp_path / name), np.dstack([grey] * 3))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_picture_of_more_than_eight_bits_is_refused_and_not_clipped_to_white(tmp_path: Path, kind: type[np.generic]):
    Image.fromarray(np.full((170, 170), 40000, kind)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif .*more than 8 bits"):
        read_photograph(tmp_path / "deep.tif")


# Which photographs


def test_bundled_photographs_are_disjoint():
    data = PhotoData()
    train, val = data.photographs("train"), data.photographs("val")
    assert train and val and not set(train) & set(val)
    assert all(path.is_file() for path in train + val)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_folder_is_split_into_disjoint_parts(photographs: Path, seed: int):
    data = PhotoData(root=str(photographs), seed=seed)
    train, val = data.photographs("train"), data.photographs("val")
    names = [path.relative_to(photographs).as_posix() for path in train + val]
    assert sorted(names) == ["a.png", "b.jpg", "c.bmp", "sub/d.png", "sub/deep/f.webp", "sub/e.JPEG"]
    assert len(val) == 1


def test_a_validation_photograph_below_root_is_refused(tmp_path: Path):
    """A search of root's sub-folders would find it, and a model would be scored on what it was trained on."""
    write_photograph(tmp_path / "root" / "a.png", seed=1)
    seen = write_photograph(tmp_path / "root" / "val" / "b.png", seed=2)
    data = PhotoData(root=str(tmp_path / "root"), val_root=str(seen.parent), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"b\.png is among the training photographs too"):
        data.load("val")


def test_photographs_behind_links_are_found_and_broken_links_named(tmp_path: Path):
    write_photograph(tmp_path / "store/a.png", seed=1)
    write_photograph(tmp_path / "root/b.png", seed=2)
    (tmp_path / "root/more").symlink_to("../store")
    (tmp_path / "root/more/back").symlink_to("../root")
    data = PhotoData(root=str(tmp_path / "root"))
    found = sorted(path.name for stage in STAGES for path in data.photographs(stage))
    assert found == ["a.png", "b.png"]
    (tmp_path / "root/gone").symlink_to("nothing")
    with pytest.raises(ValueError, match="root/gone cannot be read, the link leads nowhere"):
        data.photographs("train")


def test_val_root_holds_all_of_the_validation_photographs(photographs: Path, tmp_path: Path):
    other = write_photograph(tmp_path / "val" / "other.png")
    data = PhotoData(root=str(photographs), val_root=str(other.parent))
    assert data.photographs("val") == [other]
    assert len(data.photographs("train")) == 6


def test_one_photograph_cannot_be_split(tmp_path: Path):
    write_photograph(tmp_path / "only.png")
    with pytest.raises(ValueError, match="one photograph"):
        PhotoData(root=str(tmp_path)).photographs("train")


@pytest.mark.parametrize("draws", ["fixed", "fresh"])
def test_photographs_take_turns(tmp_path: Path, draws: Literal["fixed", "fresh"]):
    """Photographs of one colour each show from which one a pair was cut."""
    for name, level in (("a", 50), ("b", 100), ("c", 200)):
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.new("RGB", (170, 165), (level, level, level)).save(tmp_path / "train" / f"{name}.png")
    write_photograph(tmp_path / "val" / "other.png")
    data = photo_data(tmp_path / "train", tmp_path / "cache", val_root=str(tmp_path / "val"), draws=draws)
    pair = data.load("train").batch(torch.arange(8), seeded_generator(0))
    assert torch.equal(pair.source, pair.target), "a flat photograph has no noise"
    assert pair.source[:, 0, 0, 0].tolist() == [50, 100, 200, 50, 100, 200, 50, 100]


# The arrays


def test_validation_pairs_are_a_draw_and_the_clean_image(photographs: Path, tmp_path: Path):
    source = tensors(photo_data(photographs, tmp_path), "val")
    pair = source.batch(torch.arange(4), seeded_generator(0))
    assert pair.target is None and pair.clean is not None, "there is no second noisy image"
    assert pair.source.shape == (4, 3, 32, 32) and pair.source.dtype == pair.clean.dtype == torch.uint8
    noise = pair.source.double() - pair.clean.double()
    assert noise.square().mean().sqrt() > 5 and abs(noise.mean()) < 1


def test_fixed_and_fresh_draws_are_of_the_same_scenes(photographs: Path, tmp_path: Path):
    fixed = tensors(photo_data(photographs, tmp_path), "train")
    fresh = photo_data(photographs, tmp_path, draws="fresh").load("train")
    assert isinstance(fresh, CellPairs) and fresh.image_shape == fixed.image_shape == (3, 32, 32)
    cells = fresh.cells.permute(0, 4, 1, 2, 3)  # (N, 3, 32, 32, 64)
    for images in (fixed.source, fixed.target):
        assert (cells == images[..., None]).any(-1).all()
    noise = [images.double() - cells.double().mean(-1) for images in (fixed.source, fixed.target)]
    assert abs(correlation(*(n.numpy() for n in noise))) < 5 / np.sqrt(noise[0].numel() / 3)
    assert noise[0].std() > 5


def test_both_ways_of_drawing_validate_on_the_same_images(photographs: Path, tmp_path: Path):
    one, other = (
        tensors(photo_data(photographs, tmp_path / draws, draws=draws), "val") for draws in ("fixed", "fresh")
    )
    assert torch.equal(one.source, other.source) and torch.equal(one.clean, other.clean)


def refuse(*_: object) -> None:
    raise AssertionError("built again")


@pytest.mark.parametrize("draws", ["fixed", "fresh"])
def test_a_second_load_comes_from_the_cache(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: str
):
    first = photo_data(photographs, tmp_path, draws=draws).load("train").batch(torch.arange(8), seeded_generator(3))
    monkeypatch.setattr(PhotoData, "_build", refuse)
    again = photo_data(photographs, tmp_path, draws=draws).load("train").batch(torch.arange(8), seeded_generator(3))
    assert torch.equal(first.source, again.source) and torch.equal(first.target, again.target)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}, "nothing unfinished is left"


@pytest.mark.parametrize("change", [{"seed": 1}, {"train_pairs": 9}, {"draws": "fresh"}])
def test_another_setting_is_built_anew(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    val_root = str(write_photograph(tmp_path / "val" / "other.png", seed=9).parent)  # else a seed splits anew, too
    photo_data(photographs, tmp_path, val_root=val_root).load("train")
    monkeypatch.setattr(PhotoData, "_build", refuse)
    photo_data(photographs, tmp_path, val_root=val_root).load("train")
    with pytest.raises(AssertionError, match="built again"):
        photo_data(photographs, tmp_path, val_root=val_root, **change).load("train")


def test_a_changed_photograph_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(3):
        write_photograph(tmp_path / "root" / f"{number}.png", seed=number)
    data = photo_data(tmp_path / "root", tmp_path / "cache")
    data.load("train")
    before = data.fingerprint()
    write_photograph(data.photographs("train")[0], seed=99)
    data = photo_data(tmp_path / "root", tmp_path / "cache")
    assert data.fingerprint() != before
    monkeypatch.setattr(PhotoData, "_build", refuse)
    with pytest.raises(AssertionError, match="built again"):
        data.load("train")


@pytest.mark.parametrize("draws", ["fixed", "fresh"])
@pytest.mark.parametrize("kept", [0, 100, 20000])
def test_a_damaged_cache_is_built_anew(photographs: Path, tmp_path: Path, draws: str, kept: int):
    whole = photo_data(photographs, tmp_path, draws=draws).load("train").batch(torch.arange(8), seeded_generator(3))
    (cached,) = tmp_path.glob("*.npy")
    cached.write_bytes(cached.read_bytes()[:kept])
    again = photo_data(photographs, tmp_path, draws=draws).load("train").batch(torch.arange(8), seeded_generator(3))
    assert torch.equal(whole.source, again.source) and torch.equal(whole.target, again.target)


def test_a_failed_build_leaves_nothing_behind(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(photo_crops, "cut_crop", break_off)
    with pytest.raises(KeyboardInterrupt):
        photo_data(photographs, tmp_path).load("train")
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json"}, "only hashes of the photographs may be kept"


# Worker processes


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the smallest arrays be built by two worker processes."""
    monkeypatch.setattr(photos, "PART_PAIRS", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)


def test_parts_of_a_photographs_pairs_fill_the_array(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = (photographs / "a.png", photographs / "sub/d.png", photographs / "c.bmp")
    whole, parted = (PhotoArray(tmp_path / f"{name}.npy", "pairs", 10, paths, (0, 0)) for name in ("a", "b"))
    assert whole.parts == 3
    for array, pairs in ((whole, 256), (parted, 2)):
        monkeypatch.setattr(photo_crops, "PART_PAIRS", pairs)
        array.create()
        for part in reversed(range(array.parts)):
            array.fill(part)
    assert parted.parts == 6
    assert parted.path.read_bytes() == whole.path.read_bytes()


def test_workers_write_the_bytes_of_a_single_process(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_workers: None
):
    photo_data(photographs, tmp_path / "workers").load("train")
    monkeypatch.setattr(photos, "worker_processes", refuse)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    photo_data(photographs, tmp_path / "alone").load("train")
    (one,), (other,) = ((tmp_path / name).glob("*.npy") for name in ("workers", "alone"))
    assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_a_photograph_that_a_worker_cannot_read_is_named(tmp_path: Path, two_workers: None):
    for number in range(3):
        write_photograph(tmp_path / "root" / f"{number}.png", seed=number)
    (tmp_path / "root" / "1.png").write_bytes(b"no picture")
    other = write_photograph(tmp_path / "val" / "other.png", seed=9)
    data = photo_data(tmp_path / "root", tmp_path / "cache", val_root=str(other.parent))
    with pytest.raises(ValueError, match=r"1\.png cannot be read as a picture"):
        data.load("train")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".json"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, SIGINT), (signal.SIGTERM, SIGTERM)])
def test_a_signal_ends_the_workers_and_leaves_no_part_file(
    photographs: Path, tmp_path: Path, number: signal.Signals, code: int
):
    text = f"""
import joblib, signal, sys
from n2n_lightning.data.photos import PhotoData
from n2n_lightning.system.errors import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in jobs of a shell in the background
joblib.cpu_count = lambda: 2
data = PhotoData(root={str(photographs)!r}, train_pairs=1_000_000, cache_dir={str(tmp_path / "cache")!r})
sys.exit(run_command(lambda: data.load("train") and 0))
"""
    with subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stderr=subprocess.DEVNULL) as parent:
        try:
            children, ends = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + SECONDS
            while len(workers := children.read_text().split()) < 2:
                assert parent.poll() is None and time.monotonic() < ends
                time.sleep(0.05)
            parent.send_signal(number)
            assert parent.wait(SECONDS) == code
        finally:
            parent.kill()
    assert not any(is_running(int(worker)) for worker in workers)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".json"}
