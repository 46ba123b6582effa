"""Axes of files: named by OME and ImageJ, unknown, or given; what is an image, a channel, a frame, opacity."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from known_nets import Negative, denoiser, fresh
from PIL import Image

from n2n_lightning.image_io.axes import parse_axes, scene_frames
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.stack import ImageError, open_stack
from n2n_lightning.inference.file_runner import FileDenoiser
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest

SIZES = {"T": 5, "Z": 4, "C": 2, "Y": 37, "X": 45}
GIVEN = ["YX", "CYX", "YXC", "TYX", "ZYX", "TZYX", "ZTYX", "TCYX", "TYXC", "XYT", "YXT", "CTYX", "TZCYX", "CZTYX"]
GIVEN += ["XYCZT"]
GREY = {"photometric": "minisblack"}
WRITERS = {
    "npy": np.save,
    "tif": functools.partial(tifffile.imwrite, **GREY),
    "zlib.tif": functools.partial(tifffile.imwrite, compression="zlib", **GREY),
}


def images_of(values: np.ndarray, axes: str) -> np.ndarray:
    """Return (T, Z, H, W, C) computed by names alone."""
    order = [axes.index(axis) for axis in "TZYXC" if axis in axes]
    return values.transpose(order).reshape([SIZES[axis] if axis in axes else 1 for axis in "TZYXC"])


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("axes", GIVEN)
def test_given_axes_decide_what_is_an_image_and_a_channel(tmp_path: Path, axes: str, form: str):
    values = fresh(*(SIZES[axis] for axis in axes), dtype="u2")
    path = tmp_path / f"a.{form}"
    WRITERS[form](path, values)
    if form == "zlib.tif" and not axes.endswith("YX"):
        with pytest.raises(ImageError, match=f"has axes {axes}; save it with Y and X within a page"):
            open_stack(path, tmp_path / "cache", axes)
        return
    stack = open_stack(path, tmp_path / "cache", axes)
    order = [axis for axis in axes if axis in "TZ"]
    assert stack.axes == axes and stack.image_axes == tuple((axis, SIZES[axis]) for axis in order)
    expected = images_of(values, axes)
    expected = expected.swapaxes(0, 1) if order == ["Z", "T"] else expected
    expected = expected.reshape(-1, *expected.shape[2:])
    assert stack.shape == expected.shape
    for number, image in enumerate(expected):
        np.testing.assert_array_equal(stack.read(number, 3, 5, 20, 30), image[3:23, 5:35])
    assert stack == open_stack(path, tmp_path / "cache", axes), "from the cache"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("axes", GIVEN)
def test_predict_writes_every_image_of_given_axes(tmp_path: Path, axes: str, form: str):
    if form == "zlib.tif" and not axes.endswith("YX"):
        return
    values = fresh(*(SIZES[axis] for axis in axes))
    (tmp_path / "out").mkdir()
    job = FileJob(tmp_path / f"a.{form}", tmp_path / f"out/a.{form}")
    WRITERS[form](job.input, values)
    files = FileDenoiser(denoiser(Negative), Manifest(tmp_path / "out", job.input, {}), axes=axes)
    assert not list(files.run([job]))
    written = np.load(job.output) if form == "npy" else tifffile.imread(job.output)
    np.testing.assert_array_equal(written.reshape(values.shape), 255 - values)


def test_a_file_read_by_other_axes_has_another_place_in_the_cache(tmp_path: Path):
    np.save(tmp_path / "a.npy", fresh(4, 30, 30))
    shapes = {axes: open_stack(tmp_path / "a.npy", tmp_path / "cache", axes).shape for axes in ("CYX", "TYX", None)}
    assert shapes == {"CYX": (1, 30, 30, 4), "TYX": (4, 30, 30, 1), None: (4, 30, 30, 1)}


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("axes", ["TZYX", "TYX", "ZYX", "TZCYX", "TCYX", "CYX"])
def test_metadata_names_axes(tmp_path: Path, name: str, axes: str):
    options = {"ome": True} if "ome" in name else {"imagej": True}
    values = fresh(*(SIZES[axis] for axis in axes), dtype="u2")
    tifffile.imwrite(tmp_path / name, values, photometric="minisblack", metadata={"axes": axes}, **options)
    stack = open_stack(tmp_path / name, tmp_path / "cache")
    assert stack.axes == axes and stack.image_axes == tuple((a, SIZES[a]) for a in axes if a in "TZ")


@pytest.mark.parametrize("metadata", [None, {}], ids=["generic", "shaped"])
def test_axes_of_pages_without_names_are_unknown(tmp_path: Path, metadata: dict[str, Any] | None):
    tifffile.imwrite(tmp_path / "a.tif", fresh(5, 37, 45), photometric="minisblack", metadata=metadata)
    stack = open_stack(tmp_path / "a.tif", tmp_path / "cache")
    assert stack.axes == "?YX" and stack.image_axes == (("?", 5),)


def test_several_series_are_counted_by_an_axis_of_their_own(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as writer:
        for number in range(3):
            writer.write(fresh(5, 37, 45, seed=number), metadata={"axes": "TYX"}, photometric="minisblack")
    stack = open_stack(tmp_path / "a.tif", tmp_path / "cache")
    assert stack.image_axes == (("?", 3), ("T", 5)) and stack.axes == "?TYX"
    assert len(scene_frames(stack.image_axes, stack.axes)) == 3
    assert open_stack(tmp_path / "a.tif", tmp_path / "cache", "TZYX").image_axes == (("T", 3), ("Z", 5))
    with pytest.raises(ImageError, match=r"holds 3 series of images, got data\.axes=CTYX; give T or Z"):
        open_stack(tmp_path / "a.tif", tmp_path / "cache", "CTYX")


# Wrong axes


@pytest.mark.parametrize("text", ["", "T", "TZ", "TYY", "TQYX", "TTYX", "CSYX", "YXCS", "TZYX1"])
def test_letters_that_are_no_axes(text: str):
    with pytest.raises(ValueError, match=f"axes must be letters of T, Z, C, Y, X .* got '{text}'; set data.axes=TYX"):
        parse_axes(text)


def test_letters_are_taken_in_any_case_and_s_for_c():
    assert parse_axes("tzyxs") == "TZYXC"


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("axes", ["YX", "ZTYX", "TZCYX"])
def test_a_letter_for_each_dimension(tmp_path: Path, axes: str, form: str):
    WRITERS[form](tmp_path / f"a.{form}", fresh(5, 37, 45))
    fault = rf"a\.{form} has 3 dimensions \(5x37x45\), data.axes={axes} names {len(axes)}; give one letter for each"
    with pytest.raises(ImageError, match=fault):
        open_stack(tmp_path / f"a.{form}", tmp_path / "cache", axes)


def test_dimensions_of_length_1_need_no_letter(tmp_path: Path):
    np.save(tmp_path / "a.npy", fresh(5, 1, 37, 45, 1))
    for axes in ("TYX", "TZYXC"):
        stack = open_stack(tmp_path / "a.npy", tmp_path / "cache", axes)
        assert stack.shape == (5, 37, 45, 1) and stack.image_axes == (("T", 5),)


def test_arrays_of_five_dimensions_need_names(tmp_path: Path):
    np.save(tmp_path / "a.npy", fresh(2, 3, 4, 37, 45))
    with pytest.raises(ImageError, match=r"has 5 axes; .* or name them: data.axes=TZCYX"):
        open_stack(tmp_path / "a.npy", tmp_path / "cache")


# Frames of a scene


@pytest.mark.parametrize(
    ("image_axes", "expected"),
    [
        ((("T", 3),), [[0, 1, 2]]),
        ((("?", 3),), [[0, 1, 2]]),
        ((("T", 3), ("Z", 2)), [[0, 2, 4], [1, 3, 5]]),
        ((("Z", 2), ("T", 3)), [[0, 1, 2], [3, 4, 5]]),
        ((("?", 2), ("T", 2), ("Z", 2)), [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_frames_are_counted_by_time(image_axes: tuple[tuple[str, int], ...], expected: list[list[int]]):
    assert scene_frames(image_axes, "".join(axis for axis, _ in image_axes) + "YX") == expected


@pytest.mark.parametrize(
    ("axes", "fixes"),
    [
        ("ZYX", ["4 images that its metadata calls slices", "data.axes=TYX if they are frames", "data=single"]),
        ("ZCYX", ["data.axes=TCYX if they are frames", "data.axes=ZCYX if they are slices"]),
        ("??YX", ["4 of unknown meaning x 4 of unknown meaning", "data.axes=TZYX"]),
        ("?ZYX", ["4 of unknown meaning x 4 of slices", "data.axes=TZYX"]),
        ("Z?YXC", ["data.axes=ZTYXC"]),
    ],
)
def test_what_cannot_be_told_is_asked_for(axes: str, fixes: list[str]):
    with pytest.raises(ValueError, match="holds") as caught:
        scene_frames(tuple((axis, 4) for axis in axes if axis in "Z?"), axes)
    assert all(fix in str(caught.value) for fix in fixes), caught.value


# Opacity


@pytest.mark.parametrize(("shape", "axes"), [((37, 45, 4), "YXC"), ((4, 37, 45), "CYX"), ((3, 37, 45, 4), "TYXC")])
def test_given_axes_have_no_opacity(tmp_path: Path, shape: tuple[int, ...], axes: str):
    values, path = fresh(*shape, dtype="u2"), tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate" if axes == "CYX" else "contig")
    with open_image_file(path) as image:
        assert image.alphas == [3]
    frames = ", data.axes=TYX if its channels are frames" if axes == "CYX" else ""
    with pytest.raises(ImageError) as caught:
        open_stack(path, tmp_path / "cache")
    fix = f"set data.axes={axes} if channel 4 is no opacity but part of the image{frames}"
    assert str(caught.value).startswith(f"{path} has transparent pixels; ") and str(caught.value).endswith(fix)
    stack = open_stack(path, tmp_path / "cache", axes)
    expected = np.moveaxis(values, 0, -1) if axes == "CYX" else values
    np.testing.assert_array_equal(stack.read(0, 0, 0, 37, 45), expected if values.ndim == 3 else expected[0])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_take_yxc_for_four_channels(tmp_path: Path, suffix: str):
    values, path = fresh(37, 45, 4), tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    for axes, channels in itertools.product((None, "TYX", "YXC"), (3, 4)):
        with open_image_file(path, axes) as image:
            assert (len(image.colours) == channels) == ((axes == "YXC") == (channels == 4))
    np.testing.assert_array_equal(open_stack(path, tmp_path / "cache", "YXC").read(0, 0, 0, 37, 45), values)
