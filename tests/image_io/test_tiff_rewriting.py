"""TIFF files of every layout, type and encoding after ``predict``: the net's values, all else as it was."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from known_nets import denoised, fresh, ramp, replaced
from PIL import Image
from tiff_comparison import ENCODING, GREY, LAYOUTS, PLACES, RGB, H, W, assert_kept, assert_rewritten, renumber

ENCODINGS = [
    *((compression, 1) for compression in (None, "lzw", "zlib", "adobe_deflate", "packbits", "zstd", "lzma")),
    *product(("lzw", "zlib", "zstd", "lzma"), (2, 3)),
]


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


# Layouts and types


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("compression", "predictor"), ENCODINGS)
def test_layouts(tif: Path, compression: str, predictor: int, layout: str):
    values = ramp(H, W, 3, dtype="f4" if predictor == 3 else "u2")
    tifffile.imwrite(tif, values, compression=compression, predictor=predictor, **RGB, **LAYOUTS[layout])
    assert_rewritten(tif, values)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("bigtiff", "settings"),
    [
        (False, {}),
        (False, {"compression": "packbits", "rowsperstrip": 8}),
        (True, {"compression": "zlib", "predictor": True, "tile": (16, 16)}),
    ],
    ids=str,
)
def test_types(tif: Path, dtype: str, byteorder: str, bigtiff: bool, settings: dict[str, Any]):
    values = ramp(2, H, W, dtype=dtype)
    tifffile.imwrite(tif, values, byteorder=byteorder, bigtiff=bigtiff, **GREY, **settings)
    assert_rewritten(tif, values)


@pytest.mark.parametrize("settings", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}], ids=str)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, H, W), RGB | {"planarconfig": "separate"}),
        ((2, 3, H, W), RGB | {"planarconfig": "separate"}),
        ((2, H, W, 5), GREY | {"planarconfig": "contig"}),
        ((5, H, W), GREY | {"planarconfig": "separate"}),
        ((5, H, W), GREY | {"metadata": {"axes": "CYX"}}),
        ((2, 3, 2, H, W), {"imagej": True, "metadata": {"axes": "TZCYX", "unit": "um", "Ranges": (0.0, 9.0) * 2}}),
        ((2, 2, H, W, 3), {"imagej": True, "metadata": {"axes": "TZYXS", "Info": "of the microscope"}}),
        ((2, 3, 2, H, W), GREY | {"ome": True, "metadata": {"axes": "TCZYX", "PhysicalSizeX": 0.1}}),
        ((2, 2, H, W, 3), RGB | {"ome": True, "metadata": {"axes": "TCYXS"}}),
    ],
    ids=str,
)
def test_axes(tif: Path, shape: tuple[int, ...], axes: dict[str, Any], settings: dict[str, Any]):
    values = ramp(*shape)
    tifffile.imwrite(tif, values, **axes, **settings)
    assert_rewritten(tif, values)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_volumes(tif: Path, compression: str | None):
    values = ramp(4, H, W)
    tifffile.imwrite(tif, values, volumetric=True, tile=(2, 16, 16), compression=compression, **GREY)
    others = fresh(4, H, W)
    np.testing.assert_array_equal(tifffile.imread(denoised(tif)), values)
    np.testing.assert_array_equal(tifffile.imread(replaced(tif, others)), others)


def test_images_written_one_by_one(tif: Path):
    values = ramp(3, H, W)
    with tifffile.TiffWriter(tif) as writer:
        for number, image in enumerate(values):
            writer.write(image, description=f"image {number}", compression=[None, "zlib", "lzw"][number])
    others = fresh(3, H, W)
    for output, expected in ((denoised(tif), values), (replaced(tif, others[..., None]), others)):
        with tifffile.TiffFile(output) as tiff:
            np.testing.assert_array_equal([page.asarray() for page in tiff.pages], expected)
        assert_kept(tif, output)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_files_of_another_writer(tif: Path, compression: str):
    pages = [Image.fromarray(ramp(H, W, 3) + number) for number in range(3)]
    pages[0].save(tif, save_all=True, append_images=pages[1:], compression=compression, strip_size=1000)
    assert_rewritten(tif, tifffile.imread(tif), but=PLACES | ({259} if compression == "jpeg" else set()))


def test_one_page_that_stands_for_all(tif: Path):
    """ImageJ writes such files beyond 4 GB."""
    values = ramp(3, H, W, dtype="u2")
    tifffile.imwrite(tif, values, imagej=True, byteorder="<", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tif, mode="r+") as tiff:
        start = tiff.pages.first.offset
        tiff.filehandle.seek(start)
        (count,) = struct.unpack("<H", tiff.filehandle.read(2))
        tiff.filehandle.seek(start + 2 + 12 * count)
        tiff.filehandle.write(bytes(4))
    with tifffile.TiffFile(tif) as tiff:
        assert len(tiff.pages) == 1
    others = fresh(3, H, W, dtype="u2")
    np.testing.assert_array_equal(tifffile.imread(denoised(tif)), values)
    np.testing.assert_array_equal(tifffile.imread(replaced(tif, others[..., None])), others)


# What has to be encoded otherwise


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_jpeg_inside_becomes_deflate(tif: Path, layout: str, subsampling: str):
    settings = LAYOUTS[layout] | ({"rowsperstrip": 16} if layout == "strips" else {})
    sampling = (int(subsampling[0]) // int(subsampling[1]), 2 if subsampling == "420" else 1)
    tifffile.imwrite(tif, ramp(48, 64, 3), compression="jpeg", subsampling=sampling, **RGB, **settings)
    with tifffile.TiffFile(tif) as tiff:
        assert tiff.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert_rewritten(tif, tifffile.imread(tif), but=PLACES | ENCODING)
    with tifffile.TiffFile(denoised(tif)) as tiff:
        page = tiff.pages.first
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.photometric == tifffile.PHOTOMETRIC.RGB


@pytest.mark.parametrize("compression", ["jpeg2000", "png"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((H, W), GREY), ((H, W, 3), RGB), ((5, H, W), GREY | {"planarconfig": "separate"})], ids=str
)
def test_other_compressions_become_deflate(tif: Path, compression: str, shape: tuple[int, ...], axes: dict[str, Any]):
    values = ramp(*shape)
    tifffile.imwrite(tif, values, compression=compression, rowsperstrip=16, **axes)
    assert_rewritten(tif, values, but=PLACES | {259})


@pytest.mark.parametrize("rows", [7, H])
def test_samples_of_12_bits_take_16(tif: Path, rows: int):
    values = ramp(2, H, W, dtype="u2") * 40
    tifffile.imwrite(tif, values, bitspersample=12, rowsperstrip=rows, **GREY)
    assert_rewritten(tif, values, but=PLACES | {258})


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_bits_from_the_right(tif: Path, compression: str | None):
    """FillOrder 2, which few programs write: the test reverses the bits of each byte itself."""
    values = ramp(H, W)
    settings: dict[str, Any] = {"metadata": None, "byteorder": "<", "extratags": [(269, 3, 1, 2, True)], **GREY}
    tifffile.imwrite(tif, values, compression=compression, rowsperstrip=8, **settings)
    with tifffile.TiffFile(tif, mode="r+") as tiff:
        pieces = list(zip(tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts, strict=True))
        renumber(tiff, tiff.pages.first.tags[269], 266)
    data = np.fromfile(tif, np.uint8)
    for start, count in pieces:
        data[start : start + count] = np.packbits(np.unpackbits(data[start : start + count], bitorder="little"))
    data.tofile(tif)
    np.testing.assert_array_equal(tifffile.imread(tif), values)
    assert_rewritten(tif, values, but=PLACES | {266})
